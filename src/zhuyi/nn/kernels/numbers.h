/* Sixteen numbers at a time: what all kernels share. */

#pragma once

#include <immintrin.h>
#include <stdint.h>

#define BLOCK 16
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define LOG2_E 1.44269504f
#define FEW_OPERATIONS 32768 /* for no more, a second thread costs more than it brings */

/* A mask of the first `left` of sixteen. */
static inline __mmask16 first_of(long left)
{
    return left >= 16 ? 0xffff : left <= 0 ? 0 : (1u << left) - 1;
}

static inline __mmask32 first_of_32(long left)
{
    return left >= 32 ? 0xffffffff : left <= 0 ? 0 : (1u << left) - 1;
}

/* e^x for x <= 88, to one part in ten million: 2^n times a polynomial of the rest. */
static inline __m512 exp_of(__m512 x)
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

/* 2^x to one part in ten million: 2^floor(x) times a polynomial of the rest. */
static inline __m512 power_of_two(__m512 x)
{
    static const float coefficients[] = {2.18775048e-4f, 1.23878215e-3f, 9.68458045e-3f, 5.54804263e-2f,
                                         2.40230502e-1f, 6.93146929e-1f, 1.0f};
    const __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
    __m512 y = _mm512_set1_ps(coefficients[0]);
    for (int i = 1; i < 7; i++)
        y = _mm512_fmadd_ps(y, rest, _mm512_set1_ps(coefficients[i]));
    return _mm512_scalef_ps(y, x);
}

/* 1 / (1 + e^-x) */
static inline __m512 sigmoid_of(__m512 x)
{
    __m512 one = _mm512_set1_ps(1.0f);
    __m512 small = exp_of(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(x)));
    __mmask16 negative = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_div_ps(_mm512_mask_mov_ps(one, negative, small), _mm512_add_ps(one, small));
}

/* x times 0.5 (1 + tanh(z / 2)) = sigmoid(z), and the slope of that. */
static inline __m512 gelu_tanh_of(__m512 x, __m512 *slope)
{
    const __m512 one = _mm512_set1_ps(1.0f), factor = _mm512_set1_ps(1.5957691216f);
    __m512 square = _mm512_mul_ps(_mm512_set1_ps(0.044715f), _mm512_mul_ps(x, x));
    __m512 share = sigmoid_of(_mm512_mul_ps(factor, _mm512_fmadd_ps(square, x, x)));
    __m512 steepness = _mm512_mul_ps(factor, _mm512_fmadd_ps(square, _mm512_set1_ps(3.0f), one)); /* of z */
    steepness = _mm512_mul_ps(_mm512_mul_ps(share, _mm512_sub_ps(one, share)), steepness);        /* of the share */
    *slope = _mm512_fmadd_ps(x, steepness, share);
    return _mm512_mul_ps(x, share);
}

/* Sixteen numbers of an array of float32 or bfloat16. */
static inline __m512 load_numbers(const void *x, long i, int narrow, __mmask16 mask)
{
    if (!narrow)
        return _mm512_maskz_loadu_ps(mask, (const float *)x + i);
    __m512i half = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, (const uint16_t *)x + i));
    return _mm512_castsi512_ps(_mm512_slli_epi32(half, 16));
}

/* Of thirty-two numbers in bfloat16 those at even places, and those at odd ones. */
static inline __m512 even_numbers(__m512i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}

static inline __m512 odd_numbers(__m512i x)
{
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xffff0000)));
}

/* Sixteen numbers to an array of either kind; halves are rounded to even. */
static inline void store_numbers(void *out, long i, int narrow, __mmask16 mask, __m512 v)
{
    if (!narrow) {
        _mm512_mask_storeu_ps((float *)out + i, mask, v);
        return;
    }
#ifdef __AVX512BF16__
    _mm256_mask_storeu_epi16((uint16_t *)out + i, mask, (__m256i)_mm512_cvtneps_pbh(v));
#else
    __m512i bits = _mm512_castps_si512(v), one = _mm512_set1_epi32(1);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 none = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q); /* not a number, and not to become one */
    rounded = _mm512_mask_mov_epi32(rounded, none, _mm512_set1_epi32(0x7fc00000));
    _mm256_mask_storeu_epi16((uint16_t *)out + i, mask, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
#endif
}
