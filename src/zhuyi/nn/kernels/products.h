/* Products of a few float rows with int8 weights, for processors with AVX512-VNNI.

   y[r][n] = peak[r] / 127 * scale[n] * sum_k (u[r][k] - 128) w[n][k] + bias[n]

   A row is divided by its own largest number, its peak, and rounded to -127..127; the instruction wants it unsigned, so
   128 is added, and 128 * sum_k w[n][k] taken off again. Sums are exact in int32.

   Weights are packed so that one 64-byte load holds four consecutive k of sixteen n, and a tile of sixty-four n reads
   memory from front to back: packed[n / 64][k / 4][n % 64][k % 4]. n and k are filled up with zeros to multiples of 64. */

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#include "numbers.h"

#define FEW_ROWS 6 /* for no more, the matrix unit has nothing to win */
#define AHEAD 4096 /* bytes of weights asked for before they are needed */
#define MOST_NOTED 12 /* of a row's largest numbers, while it is made */
#define FAR 60.0f /* 2 to the power of this, times a vocabulary, is far from what float32 cannot hold */

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
