// The weights of an explorer's data, a byte each: unpacked, and asked for a layer's head, their mean, a row, a column.

export const MEAN = -1;      // in the place of a head
export const ROLLOUT = -1;   // in the place of a layer

async function inflate(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Of each place {place, layers, heads, rows, columns, rollout}: all layers' heads, then the rollout where there is one.
export async function unpackWeights(data) {
  const bytes = await inflate(data.weights);
  const places = new Map();
  let offset = 0;
  for (const each of data.places) {
    places.set(each.place, { ...each, offset });
    offset += (each.layers * each.heads + (each.rollout ? 1 : 0)) * each.rows * each.columns;
  }
  if (offset !== bytes.length) throw new Error(`${bytes.length} weights where ${offset} were announced`);
  return { places, map: (place, layer, head) => mapOf(bytes, places.get(place), layer, head) };
}

function mapOf(bytes, { offset, layers, heads, rows, columns }, layer, head) {
  const size = rows * columns;
  const isMean = layer !== ROLLOUT && head === MEAN;
  const first = layer === ROLLOUT ? layers * heads : layer * heads + (isMean ? 0 : head);
  const count = isMean ? heads : 1;
  const weights = new Float32Array(size);
  for (let number = first; number < first + count; number++) {
    const start = offset + number * size;
    for (let i = 0; i < size; i++) weights[i] += bytes[start + i];
  }
  let top = 1;
  for (let i = 0; i < size; i++) {
    if (weights[i] > top) top = weights[i];
    weights[i] /= 255 * count;
  }
  return { weights, rows, columns, top: top / (255 * count) };
}

export const rowOf = ({ weights, columns }, row) => weights.subarray(row * columns, (row + 1) * columns);
export const columnOf = ({ weights, rows, columns }, column) =>
  Float32Array.from({ length: rows }, (_, row) => weights[row * columns + column]);

export const percent = (share) => (share >= 0.0995 ? `${Math.round(share * 100)}%` : `${(share * 100).toFixed(1)}%`);
