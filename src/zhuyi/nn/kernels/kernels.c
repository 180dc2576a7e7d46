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

#include "attention.h"
#include "numbers.h"
#include "products.h"

#define ROWS_AT_ONCE 96 /* of sequences: their values stay in a core's cache, and weights are read for many at once */

/* Whether these products use the matrix unit, for which the process must have asked the system. */
int has_matrix_unit(void)
{
#ifdef __AMX_INT8__
    return 1;
#else
    return 0;
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
