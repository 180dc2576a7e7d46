/* What a step of training spends its time on between products, in float32 or bfloat16: one pass over memory where torch's
   operations would take several. Products, norms and the optimizer are torch's. */

#include <math.h>
#include <stdlib.h>

#include "numbers.h"

/* Activate an array, and note how steep that is at each place: all that the way back needs. */
void gelu_tanh_with_slope(const void *x, long count, long narrow, void *out, void *slopes)
{
#pragma omp parallel for schedule(static) if (count >= FEW_OPERATIONS)
    for (long i = 0; i < count; i += 16) {
        __mmask16 mask = first_of(count - i);
        __m512 slope;
        store_numbers(out, i, narrow, mask, gelu_tanh_of(load_numbers(x, i, narrow, mask), &slope));
        store_numbers(slopes, i, narrow, mask, slope);
    }
}

/* Softmax of `scale` times each row, plus a bias: p = e^(scale x + b - most) / sum. The bias of row (i, j, k) begins at
   i, j and k strides; rows are counted with k last. `normalizers` has room for the log of each row's normalizer, or is
   null. Returns 0 where there is no memory. */
struct bias {
    const void *numbers; /* or null */
    long rows, columns;  /* how many j and k there are */
    long strides[3];
};

static void softmax_row(const void *x, long at, int narrow, long n, float scale, const struct bias *bias, long row,
                        float *kept, void *out, float *normalizer)
{
    long k = row % bias->columns, j = row / bias->columns % bias->rows, i = row / bias->columns / bias->rows;
    long from = i * bias->strides[0] + j * bias->strides[1] + k * bias->strides[2];
    const __m512 lowest = _mm512_set1_ps(-3.402823466e38f), factor = _mm512_set1_ps(scale);
    __m512 most = lowest, sum = _mm512_setzero_ps();
    for (long c = 0; c < n; c += 16) {
        __mmask16 mask = first_of(n - c);
        __m512 v = _mm512_mul_ps(load_numbers(x, at + c, narrow, mask), factor);
        if (bias->numbers) /* the least finite number, twice, is infinite */
            v = _mm512_max_ps(lowest, _mm512_add_ps(v, load_numbers(bias->numbers, from + c, narrow, mask)));
        _mm512_storeu_ps(kept + c, v);
        most = _mm512_mask_max_ps(most, mask, most, v);
    }
    float top = _mm512_reduce_max_ps(most);
    for (long c = 0; c < n; c += 16) {
        __mmask16 mask = first_of(n - c);
        __m512 v = _mm512_sub_ps(_mm512_loadu_ps(kept + c), _mm512_set1_ps(top));
        __mmask16 counts = _mm512_cmp_ps_mask(v, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ); /* what is masked is nothing */
        __m512 e = _mm512_maskz_mov_ps(counts, exp_of(v));
        _mm512_storeu_ps(kept + c, e);
        sum = _mm512_mask_add_ps(sum, mask, sum, e);
    }
    float total = _mm512_reduce_add_ps(sum);
    for (long c = 0; c < n; c += 16)
        store_numbers(out, at + c, narrow, first_of(n - c),
                      _mm512_mul_ps(_mm512_loadu_ps(kept + c), _mm512_set1_ps(1.0f / total)));
    if (normalizer)
        *normalizer = top + logf(total);
}

int softmax_rows(const void *x, long rows, long n, long narrow, float scale, const struct bias *bias, void *out,
                 float *normalizers)
{
    int failed = 0;
#pragma omp parallel reduction(|| : failed) if (rows * n >= FEW_OPERATIONS)
    {
        float *kept = malloc((n + 16) * sizeof(float));
        failed = !kept;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++)
            if (kept)
                softmax_row(x, row * n, narrow, n, scale, bias, row, kept, out, normalizers ? normalizers + row : 0);
        free(kept);
    }
    return !failed;
}

/* The way back: scale p (g - sum p g). */
void softmax_rows_backward(const void *p, const void *grad, long rows, long n, long narrow, float scale, void *out)
{
#pragma omp parallel for schedule(static) if (rows * n >= FEW_OPERATIONS)
    for (long row = 0; row < rows; row++) {
        __m512 sum = _mm512_setzero_ps();
        for (long c = row * n; c < (row + 1) * n; c += 16) {
            __mmask16 mask = first_of((row + 1) * n - c);
            sum = _mm512_fmadd_ps(load_numbers(p, c, narrow, mask), load_numbers(grad, c, narrow, mask), sum);
        }
        __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum)), factor = _mm512_set1_ps(scale);
        for (long c = row * n; c < (row + 1) * n; c += 16) {
            __mmask16 mask = first_of((row + 1) * n - c);
            __m512 v = _mm512_sub_ps(load_numbers(grad, c, narrow, mask), mean);
            v = _mm512_mul_ps(_mm512_mul_ps(load_numbers(p, c, narrow, mask), factor), v);
            store_numbers(out, c, narrow, mask, v);
        }
    }
}

/* Thirty-two random bits for each of sixteen places, by nothing but seed and place: two rounds of a mixing whose every
   bit depends on every one before (the multipliers are those of splitmix32). */
static inline __m512i mixed(__m512i x)
{
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x21f0aaad));
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
    x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x735a2d97));
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
}

/* Set the share threshold / 65,536 of an array to zero and multiply the rest; the same seed leaves out the same. */
void drop_out(const void *x, long count, long narrow, uint64_t seed, long threshold, float factor, void *out)
{
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i first = _mm512_set1_epi32((int32_t)seed), second = _mm512_set1_epi32((int32_t)(seed >> 32));
    const __m512i least = _mm512_set1_epi32(threshold), half = _mm512_set1_epi32(0xffff);
    const __m512 by = _mm512_set1_ps(factor);
#pragma omp parallel for schedule(static) if (count >= FEW_OPERATIONS)
    for (long i = 0; i < count; i += 32) { /* sixteen draws serve thirty-two places */
        __m512i draws = _mm512_add_epi32(lanes, _mm512_set1_epi32((int32_t)(i / 2)));
        draws = mixed(_mm512_add_epi32(mixed(_mm512_xor_si512(draws, first)), second));
        __m512i halves[2] = {_mm512_and_si512(draws, half), _mm512_srli_epi32(draws, 16)};
        for (int h = 0; h < 2; h++) {
            long at = i + 16 * h;
            __mmask16 mask = first_of(count - at), kept = _mm512_cmpge_epu32_mask(halves[h], least);
            store_numbers(out, at, narrow, mask, _mm512_maskz_mul_ps(kept, load_numbers(x, at, narrow, mask), by));
        }
    }
}
