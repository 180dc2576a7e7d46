/* What decoding spends its time on, for processors with AVX512-VNNI: products of a few float rows with int8 weights,
   attention over a cache, and residual normalisation, one call each where eager operations would take five to ten.
   Compiled on the user's machine at first need and kept in the user's cache folder; without it the same arithmetic is
   done by torch's operations. */

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "numbers.h"

#define BLOCK 16
#define FEW_ROWS 6 /* for no more, the matrix unit has nothing to win */
#define AHEAD 4096 /* bytes of weights asked for before they are needed */
#define MOST_ASKED_FOR 16384 /* bytes of keys, before their head's turn: what the first cache has room for */
#define MOST_NOTED 12 /* of a row's largest numbers, while it is made */
#define FAR 60.0f /* 2 to the power of this, times a vocabulary, is far from what float32 cannot hold */
#define ROWS_AT_ONCE 192 /* of sequences: their values stay in a core's cache, and weights are read for many at once */
#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* Products of a few float rows with int8 weights, for processors with AVX512-VNNI.

   y[r][n] = peak[r] / 127 * scale[n] * sum_k (u[r][k] - 128) w[n][k] + bias[n]

   A row is divided by its own largest number, its peak, and rounded to -127..127; the instruction wants it unsigned, so
   128 is added, and 128 * sum_k w[n][k] taken off again. Sums are exact in int32.

   Weights are packed so that one 64-byte load holds four consecutive k of sixteen n, and a tile of sixty-four n reads
   memory from front to back: packed[n / 64][k / 4][n % 64][k % 4]. n and k are filled up with zeros to multiples of 64. */

/* The largest magnitude of a row; NaN where the row has one, so that it is not hidden: as integers, without their signs,
   floats have the order that they have as numbers, and what is not a number comes after all of them. */
static float peak_of(const float *x, long k)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    long i = 0;
    for (; i + 64 <= k; i += 64)
        for (int j = 0; j < 4; j++)
            most[j] = _mm512_max_epu32(most[j], _mm512_and_si512(_mm512_loadu_si512(x + i + 16 * j), magnitude));
    for (; i < k; i += 16)
        most[0] = _mm512_max_epu32(most[0], _mm512_and_si512(_mm512_maskz_loadu_epi32(first_of(k - i), x + i), magnitude));
    most[0] = _mm512_max_epu32(_mm512_max_epu32(most[0], most[1]), _mm512_max_epu32(most[2], most[3]));
    return _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(_mm512_reduce_max_epu32(most[0]))));
}

/* A row as bytes, 128 being zero; it is filled up to k_filled, a multiple of 64, with what is multiplied by zero
   weights. */
static void quantize_row(const float *x, long k, long k_filled, float peak, uint8_t *out)
{
    const __m512 factor = _mm512_set1_ps(peak > 0 ? 127.0f / peak : 0.0f);
    /* Packing goes on within each quarter of a register by itself: what belongs together is in all four of them. */
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (long i = 0; i < k_filled; i += 64) {
        __m512i rounded[4];
        for (int j = 0; j < 4; j++) {
            __m512 v = _mm512_maskz_loadu_ps(first_of(k - i - 16 * j), x + i + 16 * j);
            rounded[j] = _mm512_cvtps_epi32(_mm512_mul_ps(v, factor));
        }
        __m512i low = _mm512_packs_epi32(rounded[0], rounded[1]), high = _mm512_packs_epi32(rounded[2], rounded[3]);
        __m512i bytes = _mm512_permutexvar_epi32(in_order, _mm512_packs_epi16(low, high));
        _mm512_storeu_si512(out + i, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)));
    }
}

/* As `Int8Weights` in Python fills it; the blocks of weights are filled up to a multiple of WIDE. */
struct weights {
    long k, k_filled, n;
    const int8_t *packed;
    const float *scales;
    const int32_t *offsets; /* -128 * sum_k w[n][k], filled up as the weights are */
    const float *bias;      /* or null */
};

/* Of a row the largest numbers so far, largest first, and what the sum of all their exponentials comes to. */
struct noted {
    float sums[16] __attribute__((aligned(64))); /* of 2^(x log2 e - base), of each sixteenth column */
    float base;
    float least; /* of those noted; not a number while more are wanted */
    int32_t found;
    float values[MOST_NOTED];
    int64_t columns[MOST_NOTED];
};

/* One product of rows as bytes: the larger of each number and `least` goes to y, or is noted. */
struct product {
    const struct weights *weights;
    const uint8_t *u;
    const float *units; /* what a 1 in each row of u stands for */
    float least, *y;
    struct noted *noted; /* of each row, or null; `count` of its numbers are wanted */
    long count;
    const float *bars; /* (n), added before the largest are chosen, or null */
    int sums_barred;   /* whether they are added before exponentials are summed up, too */
};

/* Puts a number among the largest of a row, `found` of `count`, unless they are as large; how many are found then. Of
   equal ones the first stays before. */
static inline long insert(float x, int64_t column, float *values, int64_t *columns, long found, long count)
{
    long place = MIN(found, count - 1);
    if (found == count && x <= values[place])
        return found;
    for (; place > 0 && !(values[place - 1] >= x); place--) {
        values[place] = values[place - 1];
        columns[place] = columns[place - 1];
    }
    values[place] = x;
    columns[place] = column;
    return found + (found < count);
}

/* What `note` seldom meets: x has one of the largest so far. No other is far above the base. */
static void note_large(struct noted *row, const struct product *p, __m512 x, __mmask16 mask, long column)
{
    const __m512 chosen = p->bars ? _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, p->bars + column)) : x;
    const float largest = _mm512_mask_reduce_max_ps(mask, p->sums_barred ? chosen : x) * LOG2_E;
    if (largest > row->base + FAR) {
        const __m512 factor = power_of_two(_mm512_set1_ps(row->base - largest));
        _mm512_store_ps(row->sums, _mm512_mul_ps(_mm512_load_ps(row->sums), factor));
        row->base = largest;
    }
    __mmask16 greater = _mm512_mask_cmp_ps_mask(mask, chosen, _mm512_set1_ps(row->least), _CMP_NLE_UQ);
    float numbers[BLOCK];
    _mm512_storeu_ps(numbers, chosen);
    for (; greater; greater &= greater - 1) {
        const long i = _tzcnt_u32(greater);
        row->found = insert(numbers[i], column + i, row->values, row->columns, row->found, p->count);
    }
    row->least = row->found < p->count ? NAN : row->values[p->count - 1];
}

/* Sixteen more numbers of a row, from `column` on. */
static inline void note(struct noted *row, const struct product *p, __m512 x, __mmask16 mask, long column)
{
    if (_mm512_mask_cmp_ps_mask(mask, x, _mm512_set1_ps(row->least), _CMP_NLE_UQ)) /* or there is what is not a number */
        note_large(row, p, x, mask, column);
    if (p->sums_barred)
        x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(mask, p->bars + column));
    const __m512 sums = _mm512_load_ps(row->sums);
    x = power_of_two(_mm512_fmsub_ps(x, _mm512_set1_ps(LOG2_E), _mm512_set1_ps(row->base)));
    _mm512_store_ps(row->sums, _mm512_mask_add_ps(sums, mask, sums, x));
}

/* What turns the sums of sixteen n, from `column` on, into what they stand for. */
struct finish {
    long column;
    __mmask16 mask;
    __m512 scales, bias;
};

static inline struct finish finish_at(const struct product *p, long column)
{
    const struct weights *w = p->weights;
    const __mmask16 mask = first_of(w->n - column);
    return (struct finish){column, mask, _mm512_maskz_loadu_ps(mask, w->scales + column),
                           w->bias ? _mm512_maskz_loadu_ps(mask, w->bias + column) : _mm512_setzero_ps()};
}

static inline void finish(__m512i sums, struct finish by, const struct product *p, long r)
{
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), by.scales);
    v = _mm512_fmadd_ps(v, _mm512_set1_ps(p->units[r]), by.bias);
    v = _mm512_max_ps(_mm512_set1_ps(p->least), v); /* in this order what is not a number stays one */
    if (p->noted)
        note(p->noted + r, p, v, by.mask, by.column);
    else
        _mm512_mask_storeu_ps(p->y + r * p->weights->n + by.column, by.mask, v);
}

/* ROWS rows, from r on, times BLOCKS blocks of sixteen weights, from `first` on, all sums held in registers. */
#define DEFINE_TILE(ROWS, BLOCKS)                                                                                      \
    static void tile_##ROWS(const struct product *p, long first, long r)                                               \
    {                                                                                                                  \
        const long k_filled = p->weights->k_filled;                                                                    \
        const uint8_t *u = p->u + r * k_filled;                                                                        \
        const int8_t *packed = p->weights->packed + first * k_filled;                                                  \
        __m512i sums[ROWS][BLOCKS];                                                                                    \
        for (int i = 0; i < ROWS; i++)                                                                                 \
            for (int b = 0; b < BLOCKS; b++)                                                                           \
                sums[i][b] = _mm512_loadu_si512(p->weights->offsets + first + b * BLOCK);                              \
        for (long k = 0; k < k_filled; k += 4) {                                                                       \
            __m512i w[BLOCKS];                                                                                         \
            for (int b = 0; b < BLOCKS; b++) {                                                                         \
                w[b] = _mm512_load_si512(packed + (k * BLOCKS + 4 * b) * BLOCK);                                       \
                _mm_prefetch(packed + (k * BLOCKS + 4 * b) * BLOCK + AHEAD, _MM_HINT_T0);                              \
            }                                                                                                          \
            for (int i = 0; i < ROWS; i++) {                                                                           \
                __m512i four = _mm512_set1_epi32(*(const int32_t *)(u + i * k_filled + k));                            \
                for (int b = 0; b < BLOCKS; b++)                                                                       \
                    sums[i][b] = _mm512_dpbusd_epi32(sums[i][b], four, w[b]);                                          \
            }                                                                                                          \
        }                                                                                                              \
        for (int b = 0; b < BLOCKS && first + b * BLOCK < p->weights->n; b++) {                                        \
            const struct finish by = finish_at(p, first + b * BLOCK);                                                  \
            for (int i = 0; i < ROWS; i++)                                                                             \
                finish(sums[i][b], by, p, r + i);                                                                      \
        }                                                                                                              \
    }

DEFINE_TILE(1, 4)
DEFINE_TILE(2, 4)
DEFINE_TILE(4, 4)
DEFINE_TILE(6, 4)
#define WIDE (4 * BLOCK)

#ifdef __AMX_INT8__
/* The matrix unit works beside the others: what it has summed up is finished a few rows at a time while it goes on with
   the next weights. */
struct unfinished {
    int32_t sums[2][4][16][BLOCK] __attribute__((aligned(64))); /* one is written while the other is finished */
    int written;
    long blocks, first, rows, done; /* so many blocks of sixteen n a row, and rows; `done` of these are finished */
    struct finish by[4];
};

static inline void finish_rows(struct unfinished *u, const struct product *p, long count)
{
    const long first = u->done, end = MIN(u->rows, first + count);
    for (long b = 0; b < u->blocks; b++) {
        const struct finish by = u->by[b];
        for (long r = first; r < end; r++)
            finish(_mm512_load_si512(&u->sums[!u->written][r / 16 * u->blocks + b][r % 16]), by, p, u->first + r);
    }
    u->done = end;
}

/* The same by the processor's matrix unit, for up to sixteen rows from r on and WIDE weights, or thirty-two rows and half
   of them at a time; as many rows of u are read. Its sums are in the tiles 0 to 3, the operands in the others; every row
   of sums begins with the same offsets. */
static void sum_up(const struct product *p, long first, long r, long rows, struct unfinished *last)
{
    const long k_filled = p->weights->k_filled;
    const uint8_t *u = p->u + r * k_filled;
    const int8_t *packed = p->weights->packed + first / WIDE * WIDE * k_filled + 4 * (first % WIDE);
    const int32_t *offsets = p->weights->offsets + first;
    const long at_once = (last->rows * 64 + k_filled - 1) / k_filled;
    const int is_wide = rows <= 16;
    int32_t(*sums)[16][BLOCK] = last->sums[last->written];
    _tile_loadd(0, offsets, 0);
    _tile_loadd(1, offsets + BLOCK, 0);
    _tile_loadd(2, offsets + (is_wide ? 2 : 0) * BLOCK, 0);
    _tile_loadd(3, offsets + (is_wide ? 3 : 1) * BLOCK, 0);
    if (is_wide)
        for (long k = 0; k < k_filled; k += 64) {
            const int8_t *w = packed + k * WIDE;
            _tile_loadd(4, u + k, k_filled);
            _tile_loadd(5, w, 4 * WIDE);
            _tile_dpbusd(0, 4, 5);
            _tile_loadd(6, w + 64, 4 * WIDE);
            _tile_dpbusd(1, 4, 6);
            _tile_loadd(7, w + 128, 4 * WIDE);
            _tile_dpbusd(2, 4, 7);
            _tile_loadd(5, w + 192, 4 * WIDE);
            _tile_dpbusd(3, 4, 5);
            finish_rows(last, p, at_once);
        }
    else
        for (long k = 0; k < k_filled; k += 64) {
            const int8_t *w = packed + k * WIDE;
            _tile_loadd(4, u + k, k_filled);
            _tile_loadd(5, u + 16 * k_filled + k, k_filled);
            _tile_loadd(6, w, 4 * WIDE);
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(2, 5, 6);
            _tile_loadd(7, w + 64, 4 * WIDE);
            _tile_dpbusd(1, 4, 7);
            _tile_dpbusd(3, 5, 7);
            finish_rows(last, p, at_once);
        }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
}

static void matrix_tile(const struct product *p, long first, long rows, struct unfinished *last)
{
    const long blocks = rows <= 16 ? 4 : 2, end = MIN(first + WIDE, p->weights->n);
    for (; first < end; first += blocks * BLOCK) /* so many weights stay in the first cache */
        for (long r = 0; r < rows; r += 32) {
            sum_up(p, first, r, rows, last);
            last->written = !last->written;
            last->blocks = blocks;
            last->first = r;
            last->rows = MIN(32, rows - r);
            last->done = 0;
            for (long b = 0; b < blocks; b++)
                last->by[b] = finish_at(p, first + b * BLOCK);
        }
}

static void set_tiles(void)
{
    /* Constant: compilers do not know that the instruction reads all of it, and would write some of it afterwards. */
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes_a_row[16];
        uint8_t rows[16];
    } config = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
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

/* What one product needs beside its operands: the rows as bytes. */
struct rows {
    uint8_t *u;   /* as many times k_filled as there are rows, filled up to a multiple of 32 */
    float *units; /* what a 1 in them stands for */
};

/* What fills the rows up is multiplied, and never looked at. */
static long filled(long rows)
{
    return (rows + 31) / 32 * 32;
}

/* How many bytes `u` and `units` take together. */
static long bytes_of_rows(long rows, long k_filled)
{
    return filled(rows) * (k_filled + sizeof(float));
}

static struct rows rows_in(uint8_t *space, long rows, long k_filled)
{
    return (struct rows){space, (float *)(space + filled(rows) * k_filled)};
}

/* x (rows, k) as bytes, then the product, whose `u` and `units` are these. All threads of the region that calls it share
   the work; where there is a matrix unit its tiles are set. */
static void multiply(struct product product, const float *x, long rows, struct rows quantized)
{
    const struct product *p = &product;
    const long k = p->weights->k, k_filled = p->weights->k_filled, n = p->weights->n;
    product.u = quantized.u;
    product.units = quantized.units;
#pragma omp for schedule(static)
    for (long r = 0; r < rows; r++) {
        float peak = peak_of(x + r * k, k);
        quantize_row(x + r * k, k, k_filled, peak, quantized.u + r * k_filled);
        quantized.units[r] = peak <= FLT_MAX ? peak / 127.0f : NAN; /* of a row that has an infinity nothing is known */
    }
#ifdef __AMX_INT8__
    struct unfinished last;
    last.blocks = last.rows = last.done = last.written = 0;
#endif
#pragma omp for schedule(static) nowait
    for (long c = 0; c < (n + WIDE - 1) / WIDE; c++) {
        const long first = c * WIDE;
        long r = 0;
#ifdef __AMX_INT8__
        if (rows > FEW_ROWS)
            matrix_tile(p, first, r = rows, &last);
#endif
        while (r < rows) {
            long left = rows - r;
#define TILE(ROWS)                                                                                                     \
    {                                                                                                                  \
        tile_##ROWS(p, first, r);                                                                                      \
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
    finish_rows(&last, p, last.rows);
#endif
#pragma omp barrier
}

static void begin_products(long rows)
{
#ifdef __AMX_INT8__
    if (rows > FEW_ROWS)
        set_tiles();
#endif
}

static void end_products(long rows)
{
#ifdef __AMX_INT8__
    if (rows > FEW_ROWS)
        _tile_release();
#endif
}

/* x (rows, k) float32, y (rows, n) float32. Returns whether there was the memory for it. */
int int8_linear(const struct weights *weights, const float *x, long rows, float *y)
{
    uint8_t *space = malloc(bytes_of_rows(rows, weights->k_filled));
    if (!space)
        return 0;
#pragma omp parallel if (rows * weights->k * weights->n > FEW_OPERATIONS)
    {
        begin_products(rows);
        multiply((struct product){.weights = weights, .least = -INFINITY, .y = y}, x, rows,
                 rows_in(space, rows, weights->k_filled));
        end_products(rows);
    }
    free(space);
    return 1;
}

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

static int is_worth_threads(const struct cached *s)
{
    return s->groups * s->heads * s->width * s->columns * s->d > FEW_OPERATIONS;
}

/* q (groups, width, heads, d), with q_stride between rows, attends; out (groups, width, heads, d). */
void attend_cached(const struct cached *cached, const float *q, long q_stride, char *keys, char *values, float *out)
{
#pragma omp parallel if (is_worth_threads(cached))
    attend(cached, q, q_stride, 0, keys, values, out);
}

/* Whole sequences of one length: qkv (count, length, 3, heads, d), out (count, length, heads, d). bias (count, length) is
   added to the logits of each key, or null; who may attend none finds zeros. */
void attend_sequences(const float *qkv, long count, long length, long heads, long d, const float *bias, float *out)
{
    const long row = heads * d;
#pragma omp parallel for collapse(2) schedule(static) if (count * heads * length * length * d > FEW_OPERATIONS)
    for (long i = 0; i < count; i++)
        for (long h = 0; h < heads; h++) {
            const struct cached columns = {.columns = length, .bias = bias, .bias_group = length};
            const long end = end_of(&columns, i), start = i * length;
            const float *q = qkv + start * 3 * row + h * d;
            float *heads_out = out + start * row + h * d;
            if (end)
                attend_sequence(q, q + row, q + 2 * row, 3 * row, length, end, d, bias ? bias + start : 0, heads_out, row);
            for (long j = 0; !end && j < length; j++)
                memset(heads_out + j * row, 0, d * sizeof(float));
        }
}

/* One step of self-attention: qkv (groups, width, 3, heads, d), out (groups, width, heads, d). */
void attend_past(const struct cached *cached, const float *qkv, char *keys, char *values, float *out)
{
#pragma omp parallel if (is_worth_threads(cached))
    attend(cached, qkv, 3 * cached->heads * cached->d, 1, keys, values, out);
}

/* log sum exp of each row of x (rows, n). */
void log_normalizers(const float *x, long rows, long n, float *out)
{
#pragma omp parallel for schedule(static) if (rows * n > FEW_OPERATIONS)
    for (long r = 0; r < rows; r++) {
        const float *row = x + r * n;
        __m512 most = _mm512_set1_ps(-INFINITY), sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (long i = 0; i < n; i += 16) {
            __mmask16 mask = first_of(n - i);
            most = _mm512_mask_max_ps(most, mask, _mm512_maskz_loadu_ps(mask, row + i), most);
        }
        float peak = _mm512_reduce_max_ps(most);
        __m512 base = _mm512_set1_ps(isinf(peak) ? 0 : peak);
        for (long i = 0; i < n; i += 16) {
            __mmask16 mask = first_of(n - i);
            __m512 v = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, row + i), base);
            sums[i / 16 % 2] = _mm512_mask_add_ps(sums[i / 16 % 2], mask, sums[i / 16 % 2], exp_of(v));
        }
        float sum = _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
        out[r] = isinf(peak) && !isnan(sum) ? peak : peak + logf(sum);
    }
}

/* The `count` largest of each row of x (rows, n), largest first, and where they stand; of equal ones the first. */
void largest(const float *x, long rows, long n, long count, float *values, int64_t *places)
{
#pragma omp parallel for schedule(static) if (rows * n > FEW_OPERATIONS)
    for (long r = 0; r < rows; r++) {
        const float *row = x + r * n;
        float *best = values + r * count;
        int64_t *at = places + r * count;
        long found = 0;
        for (long i = 0; i < n; i += 64) {
            __m512 least = _mm512_set1_ps(found < count ? -INFINITY : best[count - 1]);
            uint64_t greater = 0; /* or not a number */
            for (long j = 0; j < 4; j++) {
                __mmask16 mask = first_of(n - i - 16 * j);
                __m512 v = _mm512_maskz_loadu_ps(mask, row + i + 16 * j);
                if (found >= count)
                    mask = _mm512_mask_cmp_ps_mask(mask, v, least, _CMP_NLE_UQ);
                greater |= (uint64_t)mask << 16 * j;
            }
            for (; greater; greater &= greater - 1) {
                const long here = i + _tzcnt_u64(greater);
                found = insert(row[here], here, best, at, found, count);
            }
        }
    }
}

/* A part of some groups to the places of others: x (layers, groups, heads), strides and part in bytes. */
struct part {
    char *x;
    long layers, layer_stride, group_stride, heads, head_stride, bytes;
};

void move_groups(const struct part *part, const int64_t *to, const int64_t *from, long count)
{
    const struct part p = *part;
#pragma omp parallel for collapse(2) schedule(static) if (p.layers * count * p.heads * p.bytes > 4 * FEW_OPERATIONS)
    for (long layer = 0; layer < p.layers; layer++)
        for (long i = 0; i < count; i++) {
            char *x = p.x + layer * p.layer_stride;
            for (long h = 0; h < p.heads; h++)
                memcpy(x + to[i] * p.group_stride + h * p.head_stride, x + from[i] * p.group_stride + h * p.head_stride,
                       p.bytes);
        }
}

/* LayerNorm(x + y), row by row, or LayerNorm(x) where y is null. All threads of the region that calls it share the
   work. */
static void normalize(const float *x, const float *y, long rows, long d, const float *weight, const float *bias,
                      float epsilon, float *out)
{
#pragma omp for schedule(static)
    for (long r = 0; r < rows; r++) {
        float *o = out + r * d;
        __m512 sums = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
        for (long i = 0; i < d; i += 16) {
            __mmask16 mask = first_of(d - i);
            __m512 v = _mm512_maskz_loadu_ps(mask, x + r * d + i);
            if (y)
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

void add_norm(const float *x, const float *y, long rows, long d, const float *weight, const float *bias, float epsilon,
              float *out)
{
#pragma omp parallel if (rows * d > FEW_OPERATIONS)
    normalize(x, y, rows, d, weight, bias, epsilon, out);
}

/* A step of a decoder as a list of operations, so that one call and one team of threads do all of it. Values are numbered
   buffers, (rows, width) each. */
enum kind { LINEAR, NORMALIZE, ADD, ACTIVATE, ATTEND_PAST, ATTEND_MEMORY, ATTEND_EACH_OTHER, EMBED };
enum ids { TOKENS, POSITIONS };
enum activation { RELU, GELU_TANH, SILU, GELU };

/* As `Program` in Python fills it. */
struct operation {
    long kind, from, other, to, width; /* `other`: what is added, or -1 */
    long detail;                       /* the layer, the activation, how many heads, or which ids */
    const struct weights *weights;
    const float *scale, *shift; /* or, as `scale`, the table that ids are looked up in */
    float epsilon, least;       /* `least`: 0 where what is negative becomes 0, else -infinity */
    float factor;               /* of what is looked up */
};

struct layers {
    const struct cached *cached;
    char *start;
    long layer, part; /* bytes from a layer's keys to the next one's, and to its values */
};

struct program {
    const struct operation *operations;
    long num_operations;
    const long *widths; /* of the values; the first is what the step begins with, the second its result */
    long num_values;
    long most_filled; /* the largest k_filled of all weights */
    long num_ids[2];  /* of tokens and of positions, how many there are */
};

/* Sequences lie one behind the other: sequence i is the rows from starts[i] to starts[i + 1]. */
struct sequences {
    long count;
    const int64_t *starts;
};

/* What the operations of one run work on. */
struct step {
    long rows;
    struct rows quantized;
    float **values;
    struct layers past, memory;
    struct sequences sequences;
    const int64_t *ids[2]; /* the rows' newest tokens, and their positions, from which they have gone on ... */
    long advanced;         /* by so many steps */
};

/* The normal distribution's share below x, to two parts in ten million (Abramowitz and Stegun 1964, 7.1.26). */
static inline __m512 share_below(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f), z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
    const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
    static const float coefficients[] = {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    __m512 y = _mm512_set1_ps(coefficients[0]);
    for (int i = 1; i < 5; i++)
        y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(coefficients[i]));
    __m512 beyond = exp_of(_mm512_fnmadd_ps(z, z, _mm512_setzero_ps())); /* of what lies further out than |x|, half */
    beyond = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(y, t), beyond), _mm512_set1_ps(0.5f));
    __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mov_ps(_mm512_sub_ps(one, beyond), negative, beyond);
}

static void activate(const float *x, long count, long activation, float *out)
{
#pragma omp for schedule(static)
    for (long i = 0; i < count; i += 16) {
        __mmask16 mask = first_of(count - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        if (activation == RELU)
            v = _mm512_max_ps(_mm512_setzero_ps(), v); /* in this order what is not a number stays one */
        else if (activation == SILU)
            v = _mm512_mul_ps(v, sigmoid_of(v));
        else if (activation == GELU)
            v = _mm512_mul_ps(v, share_below(v));
        else {
            __m512 slope; /* not wanted here, and so not computed */
            v = gelu_tanh_of(v, &slope);
        }
        _mm512_mask_storeu_ps(out + i, mask, v);
    }
}

static void add(const float *x, const float *y, long count, float *out)
{
#pragma omp for schedule(static)
    for (long i = 0; i < count; i += 16) {
        __mmask16 mask = first_of(count - i);
        __m512 v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(out + i, mask, v);
    }
}

/* All rows of each sequence attend each other: qkv (rows, 3, heads, d), out (rows, heads, d). */
static void attend_each_other(const float *qkv, struct sequences sequences, long heads, long d, float *out)
{
    const long row = heads * d, first = sequences.starts[0];
#pragma omp for collapse(2) schedule(static)
    for (long i = 0; i < sequences.count; i++)
        for (long h = 0; h < heads; h++) {
            const long start = sequences.starts[i] - first, length = sequences.starts[i + 1] - sequences.starts[i];
            const float *q = qkv + start * 3 * row + h * d;
            attend_sequence(q, q + row, q + 2 * row, 3 * row, length, length, d, 0, out + start * row + h * d, row);
        }
}

/* The rows of a table that ids name, times a factor. */
static void embed(const float *table, const int64_t *ids, long more, long rows, long d, float factor, float *out)
{
#pragma omp for schedule(static)
    for (long r = 0; r < rows; r++)
        for (long i = 0; i < d; i++)
            out[r * d + i] = table[(ids[r] + more) * d + i] * factor;
}

static void do_operation(const struct operation *o, const struct step *s)
{
    const float *x = s->values[o->from], *other = o->other < 0 ? 0 : s->values[o->other];
    float *out = s->values[o->to];
    const struct layers *layers = o->kind == ATTEND_PAST ? &s->past : &s->memory;
    char *keys = layers->start + o->detail * layers->layer, *values = keys + layers->part;
    switch (o->kind) {
    case LINEAR:
        multiply((struct product){.weights = o->weights, .least = o->least, .y = out}, x, s->rows, s->quantized);
        break;
    case NORMALIZE:
        normalize(x, other, s->rows, o->width, o->scale, o->shift, o->epsilon, out);
        break;
    case ADD:
        add(x, other, s->rows * o->width, out);
        break;
    case ACTIVATE:
        activate(x, s->rows * o->width, o->detail, out);
        break;
    case ATTEND_PAST:
        attend(layers->cached, x, 3 * o->width, 1, keys, values, out);
        break;
    case ATTEND_MEMORY:
        attend(layers->cached, x, o->width, 0, keys, values, out);
        break;
    case ATTEND_EACH_OTHER:
        attend_each_other(x, s->sequences, o->detail, o->width / o->detail, out);
        break;
    case EMBED:
        embed(o->scale, s->ids[o->detail], o->detail == POSITIONS ? s->advanced : 0, s->rows, o->width, o->factor, out);
        break;
    }
}

/* Memory for a run, its values' places in it, and at its end `more` bytes, which begin at `*rest`; null where there is no
   memory. */
static uint8_t *space_for(const struct program *program, long more, struct step *step, uint8_t **rest)
{
    const long rows = step->rows;
    long bytes = (bytes_of_rows(rows, program->most_filled) + 63) / 64 * 64, first = bytes;
    for (long i = 2; i < program->num_values; i++)
        bytes += (rows * program->widths[i] * sizeof(float) + 63) / 64 * 64;
    uint8_t *space = aligned_alloc(64, (bytes + more + 63) / 64 * 64), *next = space + first;
    if (!space)
        return 0;
    for (long i = 2; i < program->num_values; i++) {
        step->values[i] = (float *)next;
        next += (rows * program->widths[i] * sizeof(float) + 63) / 64 * 64;
    }
    step->quantized = rows_in(space, rows, program->most_filled);
    *rest = next;
    return space;
}

/* By as many threads as may be. Returns whether there was the memory. */
static int run(const struct program *program, struct step step)
{
    uint8_t *rest, *space = space_for(program, 0, &step, &rest);
    if (!space)
        return 0;
#pragma omp parallel
    {
        begin_products(step.rows);
        for (long i = 0; i < program->num_operations; i++)
            do_operation(program->operations + i, &step);
        end_products(step.rows);
    }
    free(space);
    return 1;
}

static int are_known(const struct program *program, const struct step *step, long steps)
{
    for (int of = TOKENS; of <= POSITIONS; of++)
        for (long r = 0; r < step->rows; r++)
            if (step->ids[of][r] < 0 || step->ids[of][r] + (of == POSITIONS ? steps - 1 : 0) >= program->num_ids[of])
                return 0;
    return 1;
}

/* A step of a decoder, of each row's newest token at its position: out (rows, widths[1]). Returns 1, 0 where there is no
   memory, and -1 where an id is not among those known. */
int run_program(const struct program *program, long rows, const int64_t *tokens, const int64_t *positions,
                struct layers past, struct layers memory, float *out)
{
    float *values[program->num_values];
    values[0] = 0;
    values[1] = out;
    const struct step step = {.rows = rows, .values = values, .past = past, .memory = memory, .ids = {tokens, positions}};
    return are_known(program, &step, 1) ? run(program, step) : -1;
}

/* How many threads a region has at most, and which of them calls: of the library that the compiler's pragmas call. */
int omp_get_max_threads(void);
int omp_get_num_threads(void);
int omp_get_thread_num(void);

/* What the threads have noted of a row, each `apart` from the next: its largest numbers, and log sum exp of all. */
static void sum_up_noted(const struct noted *noted, long threads, long apart, long count, float *values,
                         int64_t *columns, float *normalizer)
{
    float base = -FLT_MAX, sum = 0;
    long found = 0;
    for (long t = 0; t < threads; t++)
        if (noted[t * apart].found && noted[t * apart].base > base)
            base = noted[t * apart].base;
    for (long t = 0; t < threads; t++) {
        const struct noted *row = noted + t * apart;
        if (row->found)
            sum += _mm512_reduce_add_ps(_mm512_load_ps(row->sums)) * exp2f(row->base - base);
        for (long i = 0; i < row->found; i++)
            found = insert(row->values[i], row->columns[i], values, columns, found, count);
    }
    *normalizer = base / (double)LOG2_E + log(sum);
}

/* What is wanted of some steps, each of whose rows goes on with the largest of its logits. */
struct listing {
    long steps, count; /* how many steps at most, and how many of each row's largest logits */
    long end;          /* the id behind which no row goes on: after its step no other is done */
    const float *bars; /* added to the logits before the largest are chosen, or null */
    long sums_barred;  /* whether they are added before exponentials are summed up, too */
    float *values;     /* (steps, rows, count), largest first */
    int64_t *columns;  /* (steps, rows, count) */
    float *normalizers; /* (steps, rows), log sum exp of the logits */
};

/* How many of a row's largest `list_largest` can find. */
long most_noted(void)
{
    return MOST_NOTED;
}

/* Steps of a decoder whose last operation is a product, the logits, which are nowhere written down. Returns how many
   steps were done, or else as `run_program`. */
long list_largest(const struct program *program, long rows, const int64_t *tokens, const int64_t *positions,
                  struct layers past, struct layers memory, const struct listing *listing)
{
    const struct listing l = *listing;
    const struct operation *last = program->operations + program->num_operations - 1;
    const long bytes = omp_get_max_threads() * rows * (long)sizeof(struct noted);
    struct cached growing = *past.cached; /* by a column a step */
    past.cached = &growing;
    float *values[program->num_values];
    values[0] = values[1] = 0;
    int64_t *newest;
    struct step step = {.rows = rows, .values = values, .past = past, .memory = memory, .ids = {tokens, positions}};
    if (!are_known(program, &step, l.steps))
        return -1;
    uint8_t *rest, *space = space_for(program, bytes + rows * sizeof(int64_t), &step, &rest);
    if (!space)
        return 0;
    struct noted *noted = (struct noted *)rest;
    newest = (int64_t *)(rest + bytes);
    int is_ended = 0;
#pragma omp parallel
    {
        struct noted *mine = noted + omp_get_thread_num() * rows;
        begin_products(rows);
        while (step.advanced < l.steps && !is_ended) {
            const long done = step.advanced * rows;
            for (long i = 0; i < program->num_operations - 1; i++)
                do_operation(program->operations + i, &step);
            for (long r = 0; r < rows; r++) {
                _mm512_store_ps(mine[r].sums, _mm512_setzero_ps());
                mine[r].base = -1e30f; /* below all that comes */
                mine[r].least = NAN;
                mine[r].found = 0;
            }
            multiply((struct product){.weights = last->weights, .least = last->least, .noted = mine, .count = l.count,
                                      .bars = l.bars, .sums_barred = l.bars && l.sums_barred},
                     values[last->from], rows, step.quantized);
#pragma omp for schedule(static)
            for (long r = 0; r < rows; r++)
                sum_up_noted(noted + r, omp_get_num_threads(), rows, l.count, l.values + (done + r) * l.count,
                             l.columns + (done + r) * l.count, l.normalizers + done + r);
#pragma omp single
            {
                for (long r = 0; r < rows; r++) {
                    newest[r] = l.columns[(done + r) * l.count];
                    is_ended = is_ended || newest[r] == l.end;
                }
                step.ids[TOKENS] = newest;
                step.advanced++;
                growing.columns++;
            }
        }
        end_products(rows);
    }
    free(space);
    return step.advanced;
}

/* x (rows, widths[0]), out (rows, widths[1]), of `count` sequences. */
static int run_some(const struct program *program, const int64_t *starts, long count, float *x, float *out)
{
    float *values[program->num_values];
    values[0] = x;
    values[1] = out;
    return run(program, (struct step){.rows = starts[count] - starts[0], .values = values,
                                      .sequences = {count, starts}});
}

/* Whole sequences. No row needs one of another sequence: where there are enough for all threads, each does all operations
   with a few sequences at a time, whose values stay in its core's cache, and they never wait for each other. */
int run_sequences(const struct program *program, const int64_t *starts, long count, long threads, float *x, float *out)
{
    const long rows = starts[count];
    if (rows <= ROWS_AT_ONCE)
        return run_some(program, starts, count, x, out);
    long *firsts = malloc((count + 1) * sizeof(long)), num_chunks = 0; /* the first sequence of each chunk */
    if (!firsts)
        return 0;
    for (long i = 0; i < count; i++)
        if (i == 0 || starts[i + 1] - starts[firsts[num_chunks - 1]] > ROWS_AT_ONCE)
            firsts[num_chunks++] = i;
    firsts[num_chunks] = count;
    if (num_chunks < threads) {
        free(firsts);
        return run_some(program, starts, count, x, out);
    }
    int is_done = 1;
#pragma omp parallel for schedule(dynamic, 1) reduction(&& : is_done)
    for (long c = 0; c < num_chunks; c++) {
        const long first = firsts[c], start = starts[first];
        is_done = is_done && run_some(program, starts + first, firsts[c + 1] - first, x + start * program->widths[0],
                                      out + start * program->widths[1]);
    }
    free(firsts);
    return is_done;
}
