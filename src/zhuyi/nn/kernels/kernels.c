/* What decoding spends its time on, for processors with AVX512-VNNI: products of a few float rows with int8 weights,
   attention over a cache, and residual normalisation, one call each where eager operations would take five to ten.
   Compiled on the user's machine at first need and kept in the user's cache folder; without it the same arithmetic is
   done by torch's operations. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 16
#define FEW_ROWS 6 /* for no more, the matrix unit has nothing to win */
#define AHEAD 4096 /* bytes of weights asked for before they are needed */
#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* Products of a few float rows with int8 weights, for processors with AVX512-VNNI.

   y[r][n] = peak[r] / 127 * scale[n] * sum_k u[r][k] w[n][k] + bias[n]

   A row is divided by its own largest number, its peak, and rounded to -127..127; the instruction wants it unsigned, so
   128 is added, and 128 * sum_k w[n][k] taken off again. Sums are exact in int32.

   Weights are packed so that one 64-byte load holds four consecutive k of sixteen n, and a tile of sixty-four n reads
   memory from front to back: packed[n / 64][k / 4][n % 64][k % 4]. n and k are filled up with zeros to multiples of 64. */

/* A mask of the first `left` of sixteen. */
static inline __mmask16 first_of(long left)
{
    return left >= 16 ? 0xffff : left <= 0 ? 0 : (1u << left) - 1;
}

/* The largest magnitude of a row; NaN where the row has one, so that it is not hidden. */
static float peak_of(const float *x, long k)
{
    __m512 most = _mm512_setzero_ps();
    __mmask16 unordered = 0;
    for (long i = 0; i < k; i += 16) {
        __mmask16 mask = first_of(k - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        unordered |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        most = _mm512_max_ps(most, _mm512_abs_ps(v));
    }
    return unordered ? NAN : _mm512_reduce_max_ps(most);
}

/* A row as bytes, 128 being zero; it is filled up to k_filled with what is multiplied by zero weights. */
static void quantize_row(const float *x, long k, long k_filled, float peak, uint8_t *out)
{
    __m512 factor = _mm512_set1_ps(peak > 0 ? 127.0f / peak : 0.0f);
    for (long i = 0; i < k_filled; i += 16) {
        long left = k - i;
        __mmask16 mask = first_of(left);
        __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor));
        rounded = _mm512_add_epi32(rounded, _mm512_set1_epi32(128));
        _mm_storeu_si128((__m128i *)(out + i), _mm512_cvtepi32_epi8(rounded));
    }
}

/* Sixteen sums to what they stand for. */
static inline void finish(__m512i sums, long at, const float *scales, const int32_t *offsets, const float *bias, long n,
                          float peak, float *y)
{
    __mmask16 mask = first_of(n - at);
    __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_maskz_loadu_epi32(mask, offsets + at)));
    v = _mm512_mul_ps(v, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, scales + at), _mm512_set1_ps(peak / 127.0f)));
    if (bias)
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, bias + at));
    _mm512_mask_storeu_ps(y + at, mask, v);
}

/* ROWS rows times BLOCKS blocks of sixteen weights, all sums held in registers. */
#define DEFINE_TILE(ROWS, BLOCKS)                                                                                      \
    static void tile_##ROWS(const uint8_t *u, long k_filled, const int8_t *packed, const float *scales,                \
                            const int32_t *offsets, const float *bias, long n, const float *peaks, float *y,           \
                            long stride)                                                                               \
    {                                                                                                                  \
        __m512i sums[ROWS][BLOCKS];                                                                                    \
        for (int r = 0; r < ROWS; r++)                                                                                 \
            for (int b = 0; b < BLOCKS; b++)                                                                           \
                sums[r][b] = _mm512_setzero_si512();                                                                   \
        for (long k = 0; k < k_filled; k += 4) {                                                                       \
            __m512i w[BLOCKS];                                                                                         \
            for (int b = 0; b < BLOCKS; b++) {                                                                         \
                w[b] = _mm512_load_si512(packed + (k * BLOCKS + 4 * b) * BLOCK);                                       \
                _mm_prefetch(packed + (k * BLOCKS + 4 * b) * BLOCK + AHEAD, _MM_HINT_T0);                              \
            }                                                                                                          \
            for (int r = 0; r < ROWS; r++) {                                                                           \
                __m512i four = _mm512_set1_epi32(*(const int32_t *)(u + r * k_filled + k));                            \
                for (int b = 0; b < BLOCKS; b++)                                                                       \
                    sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], four, w[b]);                                          \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < ROWS; r++)                                                                                 \
            for (int b = 0; b < BLOCKS && b * BLOCK < n; b++)                                                          \
                finish(sums[r][b], b * BLOCK, scales, offsets, bias, n, peaks[r], y + r * stride);                     \
    }

DEFINE_TILE(1, 4)
DEFINE_TILE(2, 4)
DEFINE_TILE(4, 4)
DEFINE_TILE(6, 4)
#define WIDE (4 * BLOCK)

#ifdef __AMX_INT8__
/* The same for up to sixteen rows and WIDE weights at once, by the processor's matrix unit; sixteen rows of u are read. */
static void matrix_tile(const uint8_t *u, long rows, long k_filled, const int8_t *packed, const float *scales,
                        const int32_t *offsets, const float *bias, long n, const float *peaks, float *y, long stride)
{
    int32_t sums[16][WIDE] __attribute__((aligned(64)));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long k = 0; k < k_filled; k += 64) {
        const int8_t *w = packed + k * WIDE;
        for (int line = 0; line < 64; line++)
            _mm_prefetch(w + AHEAD + line * 64, _MM_HINT_T0);
        _tile_loadd(4, u + k, k_filled);
        _tile_loadd(5, w, 4 * WIDE);
        _tile_dpbusd(0, 4, 5);
        _tile_loadd(6, w + 64, 4 * WIDE);
        _tile_dpbusd(1, 4, 6);
        _tile_loadd(7, w + 128, 4 * WIDE);
        _tile_dpbusd(2, 4, 7);
        _tile_loadd(5, w + 192, 4 * WIDE);
        _tile_dpbusd(3, 4, 5);
    }
    _tile_stored(0, &sums[0][0], sizeof sums[0]);
    _tile_stored(1, &sums[0][16], sizeof sums[0]);
    _tile_stored(2, &sums[0][32], sizeof sums[0]);
    _tile_stored(3, &sums[0][48], sizeof sums[0]);
    for (long r = 0; r < rows; r++)
        for (long b = 0; b < WIDE && b < n; b += BLOCK)
            finish(_mm512_load_si512(&sums[r][b]), b, scales, offsets, bias, n, peaks[r], y + r * stride);
}

static void set_tiles(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes_a_row[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        config.bytes_a_row[tile] = 64;
        config.rows[tile] = 16;
    }
    _tile_loadconfig(&config);
}
#endif

/* Whether this file's products use the matrix unit, for which the process must have asked the system. */
int has_matrix_unit(void)
{
#ifdef __AMX_INT8__
    return 1;
#else
    return 0;
#endif
}

/* As `Int8Weights` in Python fills it; the blocks of weights are filled up to a multiple of WIDE. */
struct weights {
    long k, k_filled, n;
    const int8_t *packed;
    const float *scales;
    const int32_t *offsets; /* 128 * sum_k w[n][k] */
    const float *bias;      /* or null */
};

/* x (rows, k) float32, y (rows, n) float32. */
void int8_linear(const struct weights *weights, const float *x, long rows, float *y)
{
    const long k = weights->k, k_filled = weights->k_filled, n = weights->n;
    const long rows_filled = (rows + 15) / 16 * 16; /* what fills them up is multiplied, and never looked at */
    uint8_t *u = malloc(rows_filled * (k_filled + sizeof(float)));
    float *peaks = (float *)(u + rows_filled * k_filled);
#pragma omp parallel if (rows * k * n > 32768)
    {
#pragma omp for schedule(static)
        for (long r = 0; r < rows; r++) {
            peaks[r] = peak_of(x + r * k, k);
            quantize_row(x + r * k, k, k_filled, peaks[r], u + r * k_filled);
        }
#ifdef __AMX_INT8__
        if (rows > FEW_ROWS)
            set_tiles();
#endif
#pragma omp for schedule(static)
        for (long c = 0; c < (n + WIDE - 1) / WIDE; c++) {
            long first = c * WIDE, width = MIN(WIDE, n - first);
            const int8_t *w = weights->packed + first * k_filled;
            const float *bias = weights->bias ? weights->bias + first : 0;
            long r = 0;
#ifdef __AMX_INT8__
            if (rows > FEW_ROWS)
                for (; r < rows; r += 16)
                    matrix_tile(u + r * k_filled, MIN(16, rows - r), k_filled, w, weights->scales + first,
                                weights->offsets + first, bias, width, peaks + r, y + r * n + first, n);
#endif
            while (r < rows) {
                long left = rows - r;
#define TILE(ROWS)                                                                                                     \
    {                                                                                                                  \
        tile_##ROWS(u + r * k_filled, k_filled, w, weights->scales + first, weights->offsets + first, bias, width,     \
                    peaks + r, y + r * n + first, n);                                                                  \
        r += ROWS;                                                                                                     \
    }
                if (left >= 6)
                    TILE(6)
                else if (left >= 4)
                    TILE(4)
                else if (left >= 2)
                    TILE(2)
                else
                    TILE(1)
            }
        }
#ifdef __AMX_INT8__
        if (rows > FEW_ROWS)
            _tile_release();
#endif
    }
    free(u);
}

/* q times each of four keys, side by side so that none waits for another. */
static inline void dot_four(const float *q, const float *const k[4], long d, float out[4])
{
    __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (long i = 0; i < d; i += 16) {
        __mmask16 mask = first_of(d - i);
        __m512 x = _mm512_maskz_loadu_ps(mask, q + i);
        for (int j = 0; j < 4; j++)
            sums[j] = _mm512_fmadd_ps(x, _mm512_maskz_loadu_ps(mask, k[j] + i), sums[j]);
    }
    for (int j = 0; j < 4; j++)
        out[j] = _mm512_reduce_add_ps(sums[j]);
}

/* e^x for x <= 0, to one part in ten million: 2^n times a polynomial of the rest. */
static __m512 exp_of(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x); /* in this order what is not a number stays one */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), rest);
    static const float coefficients[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                         4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    __m512 y = _mm512_set1_ps(coefficients[0]);
    for (int i = 1; i < 6; i++)
        y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(coefficients[i]));
    y = _mm512_fmadd_ps(y, _mm512_mul_ps(rest, rest), _mm512_add_ps(rest, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(y, n);
}

/* A cache and who attends what of it. Query w of group g attends, head by head, the columns from starts[g] on (all where
   starts is null); its key in column c is that of place origins[g][w][c] (of place 0 where origins is null). Keys and
   values are (groups, heads, columns, places, d), with strides of their own between groups and heads. */
struct cached {
    long groups, heads, width, d;
    long group_stride, head_stride, columns, places;
    const uint8_t *origins;
    long origins_group, origins_row;
    const int32_t *starts;
    const float *bias; /* (groups, columns), added to the logits, or null */
    float scale;
};

/* q (groups, width, heads, d) with q_stride between rows; out (groups, width, heads, d). */
void attend_cached(const struct cached *cached, const float *q, long q_stride, const float *keys, const float *values,
                   float *out)
{
    const struct cached s = *cached;
#pragma omp parallel for collapse(2) schedule(static) if (s.groups * s.heads * s.width * s.columns * s.d > 32768)
    for (long g = 0; g < s.groups; g++)
        for (long h = 0; h < s.heads; h++) {
            const float *k = keys + g * s.group_stride + h * s.head_stride;
            const float *v = values + g * s.group_stride + h * s.head_stride;
            long first = s.starts ? s.starts[g] : 0;
            float logits[s.columns + 20];
            for (long w = 0; w < s.width; w++) {
                const uint8_t *from = s.origins ? s.origins + g * s.origins_group + w * s.origins_row : 0;
                const float *query = q + (g * s.width + w) * q_stride + h * s.d;
                float *y = out + ((g * s.width + w) * s.heads + h) * s.d;
                float most = -INFINITY;
                for (long c = first; c < s.columns; c += 4) {
                    const float *four[4];
                    for (long j = 0; j < 4; j++) {
                        long at = MIN(c + j, s.columns - 1); /* the last one again where there are no more */
                        four[j] = k + (at * s.places + (from ? from[at] : 0)) * s.d;
                    }
                    dot_four(query, four, s.d, logits + c);
                }
                for (long c = first; c < s.columns; c++) {
                    logits[c] *= s.scale;
                    if (s.bias)
                        logits[c] += s.bias[g * s.columns + c];
                    most = logits[c] > most ? logits[c] : most;
                }
                __m512 sums = _mm512_setzero_ps();
                for (long c = first; c < s.columns; c += 16) {
                    __mmask16 mask = first_of(s.columns - c);
                    __m512 x = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, logits + c), _mm512_set1_ps(most));
                    x = _mm512_maskz_mov_ps(mask, exp_of(x));
                    _mm512_storeu_ps(logits + c, x);
                    sums = _mm512_add_ps(sums, x);
                }
                float sum = _mm512_reduce_add_ps(sums);
                __m512 factor = _mm512_set1_ps(sum > 0 ? 1 / sum : 0);
                for (long i = 0; i < s.d; i += 64) {
                    __m512 totals[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                                        _mm512_setzero_ps()};
                    for (long c = first; c < s.columns; c++) {
                        const float *value = v + (c * s.places + (from ? from[c] : 0)) * s.d + i;
                        __m512 weight = _mm512_set1_ps(logits[c]);
                        for (int j = 0; j < 4; j++)
                            totals[j] = _mm512_fmadd_ps(
                                weight, _mm512_maskz_loadu_ps(first_of(s.d - i - 16 * j), value + 16 * j), totals[j]);
                    }
                    for (int j = 0; j < 4; j++)
                        _mm512_mask_storeu_ps(y + i + 16 * j, first_of(s.d - i - 16 * j),
                                              _mm512_mul_ps(totals[j], factor));
                }
            }
        }
}

/* One step of self-attention: row w of each group writes its key and value to place w of the newest column, and attends.

   qkv (groups, width, 3, heads, d): queries, keys and values as one projection gives them. */
void attend_past(const struct cached *cached, const float *qkv, float *keys, float *values, float *out)
{
    const struct cached s = *cached;
    long row = s.heads * s.d, newest = (s.columns - 1) * s.places;
    for (long g = 0; g < s.groups; g++)
        for (long w = 0; w < s.width; w++)
            for (long h = 0; h < s.heads; h++) {
                const float *k = qkv + (g * s.width + w) * 3 * row + row + h * s.d;
                long there = g * s.group_stride + h * s.head_stride + (newest + w) * s.d;
                memcpy(keys + there, k, s.d * sizeof(float));
                memcpy(values + there, k + row, s.d * sizeof(float));
            }
    attend_cached(cached, qkv, 3 * row, keys, values, out);
}

/* LayerNorm(x + y), row by row. */
void add_norm(const float *x, const float *y, long rows, long d, const float *weight, const float *bias, float epsilon,
              float *out)
{
#pragma omp parallel for schedule(static) if (rows * d > 16384)
    for (long r = 0; r < rows; r++) {
        float *o = out + r * d;
        __m512 sums = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
        for (long i = 0; i < d; i += 16) {
            __mmask16 mask = first_of(d - i);
            __m512 v = _mm512_maskz_loadu_ps(mask, x + r * d + i);
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, y + r * d + i));
            _mm512_mask_storeu_ps(o + i, mask, v);
            sums = _mm512_add_ps(sums, v);
        }
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sums) / d);
        for (long i = 0; i < d; i += 16) {
            __mmask16 mask = first_of(d - i);
            __m512 v = _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, o + i), mean);
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        __m512 factor = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / d + epsilon));
        for (long i = 0; i < d; i += 16) {
            __mmask16 mask = first_of(d - i);
            __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, o + i), mean), factor);
            v = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(mask, weight + i), _mm512_maskz_loadu_ps(mask, bias + i));
            _mm512_mask_storeu_ps(o + i, mask, v);
        }
    }
}
