/* What decoding spends its time on, for processors with AVX512-VNNI: products of a few float rows with int8 weights,
   attention over a cache, and residual normalisation, one call each where eager operations would take five to ten.
   Compiled on the user's machine at first need and kept in the user's cache folder; without it the same arithmetic is
   done by torch's operations. */

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define BLOCK 16
#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* Products of a few float rows with int8 weights, for processors with AVX512-VNNI.

   y[r][n] = peak[r] / 127 * scale[n] * sum_k u[r][k] w[n][k] + bias[n]

   A row is divided by its own largest number, its peak, and rounded to -127..127; the instruction wants it unsigned, so
   128 is added, and 128 * sum_k w[n][k] taken off again. Sums are exact in int32.

   Weights are packed so that one 64-byte load holds four consecutive k of sixteen n: packed[n / 16][k / 4][n % 16][k % 4].
   Rows of n and k are filled up with zeros to multiples of 16 and 64. */

/* The largest magnitude of a row; NaN where the row has one, so that it is not hidden. */
static float peak_of(const float *x, long k)
{
    __m512 most = _mm512_setzero_ps();
    __mmask16 unordered = 0;
    for (long i = 0; i < k; i += 16) {
        __mmask16 mask = k - i >= 16 ? 0xffff : (1u << (k - i)) - 1;
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        unordered |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        most = _mm512_max_ps(most, _mm512_abs_ps(v));
    }
    return unordered ? NAN : _mm512_reduce_max_ps(most);
}

/* A row as unsigned bytes (offset 128) or signed ones (offset 0); what fills it up to k_filled is the offset itself. */
static void quantize_row(const float *x, long k, long k_filled, float peak, int offset, uint8_t *out)
{
    __m512 factor = _mm512_set1_ps(peak > 0 ? 127.0f / peak : 0.0f);
    for (long i = 0; i < k_filled; i += 16) {
        long left = k - i;
        __mmask16 mask = left >= 16 ? 0xffff : left <= 0 ? 0 : (1u << left) - 1;
        __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor));
        rounded = _mm512_add_epi32(rounded, _mm512_set1_epi32(offset));
        _mm_storeu_si128((__m128i *)(out + i), _mm512_cvtepi32_epi8(rounded));
    }
}

/* Quantise rows for another kernel: signed bytes, and each row's peak. */
void quantize_rows(const float *x, long rows, long k, int8_t *out, float *peaks)
{
#pragma omp parallel for schedule(static) if (rows * k > 16384)
    for (long r = 0; r < rows; r++) {
        peaks[r] = peak_of(x + r * k, k);
        /* The last sixteen may not run over the row's end into the next one, which another thread writes. */
        long whole = k / 16 * 16;
        quantize_row(x + r * k, whole, whole, peaks[r], 0, (uint8_t *)out + r * k);
        for (long i = whole; i < k; i++)
            out[r * k + i] = peaks[r] > 0 ? (int8_t)nearbyintf(x[r * k + i] * (127.0f / peaks[r])) : 0;
    }
}

/* y[r][n] = y[r][n] * peaks[r] + bias[n], in place. */
void scale_rows(float *y, long rows, long n, const float *peaks, const float *bias)
{
#pragma omp parallel for schedule(static) if (rows * n > 16384)
    for (long r = 0; r < rows; r++) {
        __m512 peak = _mm512_set1_ps(peaks[r]);
        for (long i = 0; i < n; i += 16) {
            __mmask16 mask = n - i >= 16 ? 0xffff : (1u << (n - i)) - 1;
            __m512 b = bias ? _mm512_maskz_loadu_ps(mask, bias + i) : _mm512_setzero_ps();
            __m512 v = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, y + r * n + i), peak, b);
            _mm512_mask_storeu_ps(y + r * n + i, mask, v);
        }
    }
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
        long bytes = k_filled * BLOCK;                                                                                 \
        for (long k = 0; k < k_filled; k += 4) {                                                                       \
            __m512i w[BLOCKS];                                                                                         \
            for (int b = 0; b < BLOCKS; b++)                                                                           \
                w[b] = _mm512_load_si512(packed + b * bytes + k * BLOCK);                                              \
            for (int r = 0; r < ROWS; r++) {                                                                           \
                __m512i four = _mm512_set1_epi32(*(const int32_t *)(u + r * k_filled + k));                            \
                for (int b = 0; b < BLOCKS; b++)                                                                       \
                    sums[r][b] = _mm512_dpbusd_epi32(sums[r][b], four, w[b]);                                          \
            }                                                                                                          \
        }                                                                                                              \
        for (int b = 0; b < BLOCKS && b * BLOCK < n; b++) {                                                            \
            long left = n - b * BLOCK;                                                                                 \
            __mmask16 mask = left >= BLOCK ? 0xffff : (1u << left) - 1;                                                \
            __m512 scale = _mm512_maskz_loadu_ps(mask, scales + b * BLOCK);                                            \
            __m512i offset = _mm512_maskz_loadu_epi32(mask, offsets + b * BLOCK);                                      \
            __m512 add = bias ? _mm512_maskz_loadu_ps(mask, bias + b * BLOCK) : _mm512_setzero_ps();                   \
            for (int r = 0; r < ROWS; r++) {                                                                           \
                __m512 v = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[r][b], offset));                                   \
                v = _mm512_mul_ps(v, _mm512_mul_ps(scale, _mm512_set1_ps(peaks[r] / 127.0f)));                         \
                _mm512_mask_storeu_ps(y + r * stride + b * BLOCK, mask, _mm512_add_ps(v, add));                        \
            }                                                                                                          \
        }                                                                                                              \
    }

DEFINE_TILE(1, 4)
DEFINE_TILE(2, 4)
DEFINE_TILE(4, 4)
DEFINE_TILE(6, 4)
#define WIDE (4 * BLOCK)

/* x (rows, k) float32, y (rows, n) float32; u and peaks are room for rows * k_filled bytes and rows floats. The blocks
   of weights are filled up to a multiple of WIDE. */
void int8_linear(const float *x, long rows, long k, long k_filled, const int8_t *packed, const float *scales,
                 const int32_t *offsets, const float *bias, long n, uint8_t *u, float *peaks, float *y)
{
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long r = 0; r < rows; r++) {
            peaks[r] = peak_of(x + r * k, k);
            quantize_row(x + r * k, k, k_filled, peaks[r], 128, u + r * k_filled);
        }
#pragma omp for schedule(static)
        for (long c = 0; c < (n + WIDE - 1) / WIDE; c++) {
            long first = c * WIDE, width = MIN(WIDE, n - first);
            const int8_t *w = packed + first * k_filled;
            const float *b = bias ? bias + first : 0;
            for (long r = 0; r < rows;) {
                long left = rows - r;
#define TILE(ROWS)                                                                                                     \
    {                                                                                                                  \
        tile_##ROWS(u + r * k_filled, k_filled, w, scales + first, offsets + first, b, width, peaks + r,               \
                    y + r * n + first, n);                                                                             \
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
    }
}

static float dot(const float *a, const float *b, long d)
{
    __m512 sum = _mm512_setzero_ps();
    for (long i = 0; i < d; i += 16) {
        __mmask16 mask = d - i >= 16 ? 0xffff : (1u << (d - i)) - 1;
        sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, a + i), _mm512_maskz_loadu_ps(mask, b + i), sum);
    }
    return _mm512_reduce_add_ps(sum);
}

/* Attention of single queries over a cache. Query w of group g attends, head by head, the columns from starts[g] on (all
   where starts is null); its key in column c is that of place origins[g][w][c] (of place 0 where origins is null).
   bias (groups, columns) is added to the logits.

   q (groups, width, heads, d) with q_stride between rows; keys and values (groups, heads, columns, places, d), each with
   strides of its own between groups and heads and d between neighbours; out (groups, width, heads, d). */
void attend_cached(const float *q, long q_stride, const float *keys, const float *values, long group_stride,
                   long head_stride, long groups, long heads, long width, long columns, long places, long d,
                   const uint8_t *origins, long origins_group, long origins_row, const int32_t *starts,
                   const float *bias, float scale, float *out)
{
#pragma omp parallel for collapse(2) schedule(static) if (groups * heads * width * columns * d > 32768)
    for (long g = 0; g < groups; g++)
        for (long h = 0; h < heads; h++) {
            const float *k = keys + g * group_stride + h * head_stride;
            const float *v = values + g * group_stride + h * head_stride;
            long first = starts ? starts[g] : 0;
            float logits[columns > 0 ? columns : 1];
            for (long w = 0; w < width; w++) {
                const uint8_t *from = origins ? origins + g * origins_group + w * origins_row : 0;
                const float *query = q + (g * width + w) * q_stride + h * d;
                float *y = out + ((g * width + w) * heads + h) * d;
                float most = -INFINITY, sum = 0;
                for (long c = first; c < columns; c++) {
                    logits[c] = dot(query, k + (c * places + (from ? from[c] : 0)) * d, d) * scale;
                    if (bias)
                        logits[c] += bias[g * columns + c];
                    most = logits[c] > most ? logits[c] : most;
                }
                for (long c = first; c < columns; c++)
                    sum += logits[c] = expf(logits[c] - most);
                for (long i = 0; i < d; i += 16) {
                    __mmask16 mask = d - i >= 16 ? 0xffff : (1u << (d - i)) - 1;
                    __m512 total = _mm512_setzero_ps();
                    for (long c = first; c < columns; c++) {
                        const float *value = v + (c * places + (from ? from[c] : 0)) * d;
                        total = _mm512_fmadd_ps(_mm512_set1_ps(logits[c]), _mm512_maskz_loadu_ps(mask, value + i), total);
                    }
                    _mm512_mask_storeu_ps(y + i, mask, _mm512_div_ps(total, _mm512_set1_ps(sum > 0 ? sum : 1)));
                }
            }
        }
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
            __mmask16 mask = d - i >= 16 ? 0xffff : (1u << (d - i)) - 1;
            __m512 v = _mm512_maskz_loadu_ps(mask, x + r * d + i);
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, y + r * d + i));
            _mm512_mask_storeu_ps(o + i, mask, v);
            sums = _mm512_add_ps(sums, v);
        }
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sums) / d);
        for (long i = 0; i < d; i += 16) {
            __mmask16 mask = d - i >= 16 ? 0xffff : (1u << (d - i)) - 1;
            __m512 v = _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, o + i), mean);
            squares = _mm512_fmadd_ps(v, v, squares);
        }
        __m512 factor = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / d + epsilon));
        for (long i = 0; i < d; i += 16) {
            __mmask16 mask = d - i >= 16 ? 0xffff : (1u << (d - i)) - 1;
            __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, o + i), mean), factor);
            v = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(mask, weight + i), _mm512_maskz_loadu_ps(mask, bias + i));
            _mm512_mask_storeu_ps(o + i, mask, v);
        }
    }
}
