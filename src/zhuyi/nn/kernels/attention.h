/* Attention: of each query alone over a cache, and of whole sequences, whose queries share their keys. */

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#include "numbers.h"

#define MOST_ASKED_FOR 16384 /* bytes of keys, before their head's turn: what the first cache has room for */

/* The sums of sixteen vectors, each in its own place: halves are added to halves until one number of each is left. */
static inline __m512 sums_of(const __m512 v[16])
{
    __m512 two[8], four[4];
    for (int i = 0; i < 8; i++)
        two[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        __m512d x = _mm512_castps_pd(two[2 * i]), y = _mm512_castps_pd(two[2 * i + 1]);
        four[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    /* Now each quarter of four[i] has the sums of its own numbers of v[4 i], ..., v[4 i + 3]. */
    __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x44), _mm512_shuffle_f32x4(four[0], four[1], 0xee));
    __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(four[2], four[3], 0x44), _mm512_shuffle_f32x4(four[2], four[3], 0xee));
    return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
}

/* q times each of sixteen keys. Keys in bfloat16 are read thirty-two numbers at a time, and q has those at even places
   before those at odd ones. */
static inline __m512 dot_sixteen(const float *q, const char *const k[16], long d, int narrow)
{
    __m512 sums[16];
    for (int j = 0; j < 16; j++)
        sums[j] = _mm512_setzero_ps();
    if (narrow)
        for (long i = 0; i < d; i += 32) {
            __mmask32 mask = first_of_32(d - i);
            __m512 even = _mm512_loadu_ps(q + i), odd = _mm512_loadu_ps(q + i + 16);
            for (int j = 0; j < 16; j++) {
                __m512i both = _mm512_maskz_loadu_epi16(mask, k[j] + 2 * i);
                sums[j] = _mm512_fmadd_ps(even, even_numbers(both), sums[j]);
                sums[j] = _mm512_fmadd_ps(odd, odd_numbers(both), sums[j]);
            }
        }
    else
        for (long i = 0; i < d; i += 16) {
            __mmask16 mask = first_of(d - i);
            __m512 x = _mm512_maskz_loadu_ps(mask, q + i);
            for (int j = 0; j < 16; j++)
                sums[j] = _mm512_fmadd_ps(x, _mm512_maskz_loadu_ps(mask, (const float *)k[j] + i), sums[j]);
        }
    return sums_of(sums);
}

/* Thirty-two numbers after the other: those at even places before those at odd ones. `out` is filled up with zeros. */
static void even_before_odd(const float *x, long d, float *out)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    for (long i = 0; i < d; i += 32) {
        __m512 low = _mm512_maskz_loadu_ps(first_of(d - i), x + i);
        __m512 high = _mm512_maskz_loadu_ps(first_of(d - i - 16), x + i + 16);
        _mm512_storeu_ps(out + i, _mm512_permutex2var_ps(low, even, high));
        _mm512_storeu_ps(out + i + 16,
                         _mm512_permutex2var_ps(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high));
    }
}

/* A cache and who attends what of it. Query w of group g attends, head by head, the columns from starts[g] on (all where
   starts is null); its key in column c is that of place origins[g][w][c] (of place 0 where origins is null). Keys and
   values are (groups, heads, columns, places, d), in float32 or bfloat16, with strides of their own between groups and
   heads, in numbers. */
struct cached {
    long groups, heads, width, d;
    long narrow; /* whether in bfloat16 */
    long group_stride, head_stride, columns, places;
    const uint8_t *origins;
    long origins_group, origins_row;
    const int32_t *starts;
    const float *bias; /* (groups, columns), added to the logits, or null */
    long bias_group;
    float scale;
};

/* The average of `count` values, which lie `there` from the keys, by weights that sum up to `sum`. */
static inline void average(const char *const *keys, long there, long count, const float *weights, float sum, long d,
                           int narrow, float *y)
{
    const __m512 factor = _mm512_set1_ps(sum > 0 ? 1 / sum : 0);
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (long i = 0; i < d; i += 64) {
        __m512 totals[4];
        for (int j = 0; j < 4; j++)
            totals[j] = _mm512_setzero_ps();
        for (long c = 0; c < count; c++) {
            const __m512 weight = _mm512_set1_ps(weights[c]);
            const char *value = keys[c] + there;
            if (narrow)
                for (int j = 0; j < 2; j++) {
                    __m512i both = _mm512_maskz_loadu_epi16(first_of_32(d - i - 32 * j), value + 2 * (i + 32 * j));
                    totals[2 * j] = _mm512_fmadd_ps(weight, even_numbers(both), totals[2 * j]);
                    totals[2 * j + 1] = _mm512_fmadd_ps(weight, odd_numbers(both), totals[2 * j + 1]);
                }
            else
                for (int j = 0; j < 4; j++) {
                    __m512 v = _mm512_maskz_loadu_ps(first_of(d - i - 16 * j), (const float *)value + i + 16 * j);
                    totals[j] = _mm512_fmadd_ps(weight, v, totals[j]);
                }
        }
        if (narrow)
            for (int j = 0; j < 4; j += 2) {
                __m512 even = totals[j], odd = totals[j + 1];
                totals[j] = _mm512_permutex2var_ps(even, low, odd);
                totals[j + 1] = _mm512_permutex2var_ps(even, high, odd);
            }
        for (int j = 0; j < 4; j++)
            _mm512_mask_storeu_ps(y + i + 16 * j, first_of(d - i - 16 * j), _mm512_mul_ps(totals[j], factor));
    }
}

/* Behind the last column that group g attends: of a shorter text's padding nothing is read. */
static long end_of(const struct cached *cached, long g)
{
    long end = cached->columns;
    if (cached->bias)
        while (end > 0 && cached->bias[g * cached->bias_group + end - 1] <= -FLT_MAX)
            end--;
    return end;
}

/* Head h of group g: as `attend` has it. */
static inline __attribute__((always_inline)) void attend_head_of(const struct cached *cached, long g, long h,
                                                                 const float *q, long q_stride, int writes, int narrow,
                                                                 char *keys, char *values, float *out)
{
    const struct cached s = *cached;
    const long row = s.heads * s.d, size = narrow ? sizeof(uint16_t) : sizeof(float);
    char *k = keys + (g * s.group_stride + h * s.head_stride) * size;
    char *v = values + (g * s.group_stride + h * s.head_stride) * size;
    if (writes)
        for (long w = 0; w < s.width; w++) {
            const float *new = q + (g * s.width + w) * q_stride + row + h * s.d;
            long there = ((s.columns - 1) * s.places + w) * s.d;
            for (long i = 0; i < s.d; i += 16) {
                __mmask16 mask = first_of(s.d - i);
                store_numbers(k, there + i, narrow, mask, _mm512_maskz_loadu_ps(mask, new + i));
                store_numbers(v, there + i, narrow, mask, _mm512_maskz_loadu_ps(mask, new + row + i));
            }
        }
    const long first = s.starts ? s.starts[g] : 0, count = end_of(cached, g) - first;
    float weights[s.columns + 16]; /* of column first + c at c */
    const char *rows[s.columns + 16];
    float parted[narrow ? (s.d + 31) / 32 * 32 : 1];
    for (long w = 0; w < s.width; w++) {
        const uint8_t *from = s.origins ? s.origins + g * s.origins_group + w * s.origins_row : 0;
        const float *query = q + (g * s.width + w) * q_stride + h * s.d;
        if (narrow) {
            even_before_odd(query, s.d, parted);
            query = parted;
        }
        if (from || w == 0)
            for (long c = 0; c < count + 15; c++) { /* the last one again where there are no more */
                long at = first + MIN(c, count - 1);
                rows[c] = k + (at * s.places + (from ? from[at] : 0)) * s.d * size;
            }
        __m512 most = _mm512_set1_ps(-INFINITY), sums = _mm512_setzero_ps();
        for (long c = 0; c < count; c += 16) {
            __mmask16 mask = first_of(count - c);
            __m512 x = _mm512_mul_ps(dot_sixteen(query, rows + c, s.d, narrow), _mm512_set1_ps(s.scale));
            if (s.bias)
                x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, s.bias + g * s.bias_group + first + c));
            _mm512_storeu_ps(weights + c, x);
            most = _mm512_mask_max_ps(most, mask, x, most);
        }
        most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
        for (long c = 0; c < count; c += 16) {
            __m512 x = exp_of(_mm512_sub_ps(_mm512_loadu_ps(weights + c), most));
            x = _mm512_maskz_mov_ps(first_of(count - c), x);
            _mm512_storeu_ps(weights + c, x);
            sums = _mm512_add_ps(sums, x);
        }
        average(rows, v - k, count, weights, _mm512_reduce_add_ps(sums), s.d, narrow,
                out + ((g * s.width + w) * s.heads + h) * s.d);
    }
}

static void attend_head(const struct cached *cached, long g, long h, const float *q, long q_stride, int writes,
                        char *keys, char *values, float *out)
{
    if (cached->narrow)
        attend_head_of(cached, g, h, q, q_stride, writes, 1, keys, values, out);
    else
        attend_head_of(cached, g, h, q, q_stride, writes, 0, keys, values, out);
}

/* The next head's keys and values begin to come while this one's are attended: as each is short, and its own place in
   memory, the processor foresees none of them. */
static void ask_for(const char *keys, long bytes, long there)
{
    for (long i = 0; i < bytes; i += 64) {
        _mm_prefetch(keys + i, _MM_HINT_T0);
        _mm_prefetch(keys + there + i, _MM_HINT_T0);
    }
}

/* q (groups, width, heads, d) with q_stride between rows; out (groups, width, heads, d). All threads of the region that
   calls it share the work.

   Where it writes, q (groups, width, 3, heads, d) are queries, keys and values as one projection gives them, and row w
   of each group first writes its key and value to place w of the newest column. */
static void attend(const struct cached *cached, const float *q, long q_stride, int writes, char *keys, char *values,
                   float *out)
{
    const long heads = cached->heads, size = cached->narrow ? sizeof(uint16_t) : sizeof(float);
    const long bytes = cached->places * cached->d * size;
#pragma omp for collapse(2) schedule(static)
    for (long g = 0; g < cached->groups; g++)
        for (long h = 0; h < heads; h++) {
            const long next_g = h + 1 < heads ? g : MIN(g + 1, cached->groups - 1), next_h = (h + 1) % heads;
            const char *next = keys + (next_g * cached->group_stride + next_h * cached->head_stride) * size;
            ask_for(next, MIN(end_of(cached, next_g) * bytes, MOST_ASKED_FOR), values - keys);
            attend_head(cached, g, h, q, q_stride, writes, keys, values, out);
        }
}

/* Sixteen rows of sixteen numbers as columns. */
static inline void transpose(__m512 x[16])
{
    __m512 y[16];
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) { /* x[i + k] has in each quarter its column k of four rows */
            __m512d a = _mm512_castps_pd(y[i + j]), b = _mm512_castps_pd(y[i + j + 2]);
            x[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            x[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int k = 0; k < 4; k++) {
        __m512 a = _mm512_shuffle_f32x4(x[k], x[k + 4], 0x88), b = _mm512_shuffle_f32x4(x[k + 8], x[k + 12], 0x88);
        __m512 c = _mm512_shuffle_f32x4(x[k], x[k + 4], 0xdd), d = _mm512_shuffle_f32x4(x[k + 8], x[k + 12], 0xdd);
        y[k] = _mm512_shuffle_f32x4(a, b, 0x88);
        y[k + 4] = _mm512_shuffle_f32x4(c, d, 0x88);
        y[k + 8] = _mm512_shuffle_f32x4(a, b, 0xdd);
        y[k + 12] = _mm512_shuffle_f32x4(c, d, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        x[i] = y[i];
}

/* `count` keys of d numbers, `stride` apart, in blocks of sixteen: number i of all of a block side by side. */
static void blocks_of_keys(const float *k, long stride, long count, long d, float *blocks)
{
    for (long c = 0; c < count; c += BLOCK)
        for (long i = 0; i < d; i += BLOCK) {
            __m512 x[BLOCK];
            for (long j = 0; j < BLOCK; j++)
                x[j] = c + j < count ? _mm512_maskz_loadu_ps(first_of(d - i), k + (c + j) * stride + i)
                                     : _mm512_setzero_ps();
            transpose(x);
            for (long j = 0; j < MIN(BLOCK, d - i); j++)
                _mm512_storeu_ps(blocks + c * d + (i + j) * BLOCK, x[j]);
        }
}

/* Eight queries times BLOCKS blocks of keys. */
#define QUERIES 8
#define DEFINE_LOGITS(BLOCKS)                                                                                          \
    static void logits_##BLOCKS(const float *const q[QUERIES], const float *keys, long d, float *out, long stride)     \
    {                                                                                                                  \
        __m512 sums[QUERIES][BLOCKS];                                                                                  \
        for (int j = 0; j < QUERIES; j++)                                                                              \
            for (int b = 0; b < BLOCKS; b++)                                                                           \
                sums[j][b] = _mm512_setzero_ps();                                                                      \
        for (long i = 0; i < d; i++) {                                                                                 \
            __m512 k[BLOCKS];                                                                                          \
            for (int b = 0; b < BLOCKS; b++)                                                                           \
                k[b] = _mm512_loadu_ps(keys + (b * d + i) * BLOCK);                                                    \
            for (int j = 0; j < QUERIES; j++)                                                                          \
                for (int b = 0; b < BLOCKS; b++)                                                                       \
                    sums[j][b] = _mm512_fmadd_ps(_mm512_set1_ps(q[j][i]), k[b], sums[j][b]);                           \
        }                                                                                                              \
        for (int j = 0; j < QUERIES; j++)                                                                              \
            for (int b = 0; b < BLOCKS; b++)                                                                           \
                _mm512_storeu_ps(out + j * stride + b * BLOCK, sums[j][b]);                                            \
    }

DEFINE_LOGITS(1)
DEFINE_LOGITS(2)

/* Logits times log2 e, one for each of `count` keys, become weights; returns what they sum up to. */
static inline float weights_of(float *x, long count, const float *bias, float scale)
{
    __m512 most = _mm512_set1_ps(-INFINITY), sums = _mm512_setzero_ps();
    for (long c = 0; c < count; c += BLOCK) {
        const __mmask16 mask = first_of(count - c);
        __m512 v = _mm512_loadu_ps(x + c);
        v = bias ? _mm512_fmadd_ps(v, _mm512_set1_ps(scale), _mm512_maskz_loadu_ps(mask, bias + c))
                 : _mm512_mul_ps(v, _mm512_set1_ps(scale));
        v = _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), mask, v);
        _mm512_storeu_ps(x + c, v);
        most = _mm512_max_ps(v, most);
    }
    most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
    for (long c = 0; c < count; c += BLOCK) {
        __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + c), most), _mm512_set1_ps(LOG2_E));
        v = power_of_two(v);
        _mm512_storeu_ps(x + c, v);
        sums = _mm512_add_ps(sums, v);
    }
    return _mm512_reduce_add_ps(sums);
}

/* Four averages of `count` values of d numbers, `stride` apart, by weights that lie `apart` and add up to `sums`. */
static void averages(const float *v, long stride, long count, long d, const float *weights, long apart,
                     const float sums[4], float *const out[4])
{
    for (long i = 0; i < d; i += 4 * BLOCK) {
        __m512 totals[4][4];
        for (int j = 0; j < 4; j++)
            for (int b = 0; b < 4; b++)
                totals[j][b] = _mm512_setzero_ps();
        for (long c = 0; c < count; c++)
            for (int b = 0; b < 4; b++) {
                const __m512 value = _mm512_maskz_loadu_ps(first_of(d - i - b * BLOCK), v + c * stride + i + b * BLOCK);
                for (int j = 0; j < 4; j++)
                    totals[j][b] = _mm512_fmadd_ps(_mm512_set1_ps(weights[j * apart + c]), value, totals[j][b]);
            }
        for (int j = 0; j < 4; j++)
            for (int b = 0; b < 4; b++)
                _mm512_mask_storeu_ps(out[j] + i + b * BLOCK, first_of(d - i - b * BLOCK),
                                      _mm512_mul_ps(totals[j][b], _mm512_set1_ps(1 / sums[j])));
    }
}

/* One head of a sequence: `length` queries attend the first `count` keys; all of them lie `stride` apart. `bias` (count)
   is added to the logits, or null. */
static void attend_sequence(const float *q, const float *k, const float *v, long stride, long length, long count,
                            long d, const float *bias, float *out, long out_stride)
{
    const long apart = (count + BLOCK - 1) / BLOCK * BLOCK;
    float keys[apart * d], weights[QUERIES * apart];
    blocks_of_keys(k, stride, count, d, keys);
    for (long first = 0; first < length; first += QUERIES) {
        const float *queries[QUERIES];
        float sums[QUERIES], *rows[QUERIES];
        for (long j = 0; j < QUERIES; j++) { /* the last one again where there are no more */
            queries[j] = q + MIN(first + j, length - 1) * stride;
            rows[j] = out + MIN(first + j, length - 1) * out_stride;
        }
        for (long c = 0; c < apart; c += 2 * BLOCK)
            if (c + BLOCK < apart)
                logits_2(queries, keys + c * d, d, weights + c, apart);
            else
                logits_1(queries, keys + c * d, d, weights + c, apart);
        for (long j = 0; j < QUERIES; j++)
            sums[j] = weights_of(weights + j * apart, count, bias, 1 / sqrtf(d));
        for (long j = 0; j < QUERIES && first + j < length; j += 4)
            averages(v, stride, count, d, weights + j * apart, apart, sums + j, rows + j);
    }
}
