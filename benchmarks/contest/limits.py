"""The least time in which a machine could work: every weight read once a step, every product at full rate."""

from dataclasses import dataclass

from zhuyi.models.gpt import GptConfig
from zhuyi.models.transformer import TransformerConfig


@dataclass(frozen=True)
class Precision:
    """Bytes of a weight and of a cached number, and the machine's rate of products, by its name in `zhuyi doctor`."""

    weight_bytes: int
    cache_bytes: int
    operations: str


PRECISIONS = {
    "float32": Precision(4, 4, "float32_gflops"),
    "bfloat16": Precision(2, 2, "bfloat16_gflops"),
    "int8": Precision(1, 4, "int8_gops"),
}


@dataclass(frozen=True)
class Work:
    """What one part of the decoding needs at least."""

    weight_bytes: float
    other_bytes: float
    operations: float

    def seconds(self, bytes_per_second: float, operations_per_second: float) -> float:
        """Reading and computing at once, each at its full rate."""
        return max((self.weight_bytes + self.other_bytes) / bytes_per_second, self.operations / operations_per_second)


def encoder_work(config: TransformerConfig, batch: int, source: int, precision: str) -> Work:
    """Read all sources, and project their memory for each decoder layer."""
    d, weight_bytes = config.d_model, PRECISIONS[precision].weight_bytes
    weights = config.num_encoder_layers * (4 * d * d + 2 * d * config.d_ff) + config.num_decoder_layers * 2 * d * d
    attention = config.num_encoder_layers * 4 * d * source * source * batch
    return Work(weights * weight_bytes, 0, 2 * weights * batch * source + attention)


def step_work(config: TransformerConfig, batch: int, beam: int, source: int, length: int, precision: str) -> Work:
    """One step, with a cache half as long as it will be; the rows of a beam share their memory."""
    d, layers = config.d_model, config.num_decoder_layers
    size = PRECISIONS[precision]
    rows, past = batch * beam, (length + 1) / 2
    weights = layers * (6 * d * d + 2 * d * config.d_ff) + config.target_vocab_size * d
    cached = layers * 2 * d * (rows * past + batch * source)
    attention = layers * 4 * d * rows * (past + source)
    return Work(weights * size.weight_bytes, cached * size.cache_bytes, 2 * weights * rows + attention)


def weight_bytes_of_a_step(config: TransformerConfig, precision: str) -> int:
    """The table that is read from beginning to end in every step."""
    return int(step_work(config, 1, 1, 1, 1, precision).weight_bytes)


def tokens_per_second(
    config: TransformerConfig,
    batch: int,
    beam: int,
    source: int,
    length: int,
    precision: str,
    rates: dict[str, float],
) -> float:
    """The most target tokens a second that the machine's measured rates allow.

    Args: rates: `<precision>_weights_gb_per_second`, reading a table as large as a step's weights, and `zhuyi doctor`'s
          rates of products.
    """
    reading = 1e9 * rates[f"{precision}_weights_gb_per_second"]
    multiplying = 1e9 * rates[PRECISIONS[precision].operations]
    encoder = encoder_work(config, batch, source, precision).seconds(reading, multiplying)
    step = step_work(config, batch, beam, source, length, precision).seconds(reading, multiplying)
    return batch * length / (encoder + length * step)


def prompt_work(config: GptConfig, batch: int, length: int, precision: str) -> Work:
    """Read a prompt; what its tokens would be followed by is not asked for."""
    d = config.d_model
    weights = config.num_layers * (4 * d * d + 2 * d * config.layer.d_ff)
    attention = config.num_layers * 2 * d * length * length * batch
    return Work(weights * PRECISIONS[precision].weight_bytes, 0, 2 * weights * batch * length + attention)


def next_token_work(config: GptConfig, batch: int, past: float, precision: str) -> Work:
    """One step of a text of which so many tokens are there."""
    d, layers, size = config.d_model, config.num_layers, PRECISIONS[precision]
    weights = layers * (4 * d * d + 2 * d * config.layer.d_ff) + config.vocab_size * d
    cached = layers * 2 * d * batch * past
    operations = 2 * weights * batch + layers * 4 * d * batch * past
    return Work(weights * size.weight_bytes, cached * size.cache_bytes, operations)


def continued_tokens_per_second(
    config: GptConfig, batch: int, prompt: int, length: int, precision: str, rates: dict[str, float]
) -> float:
    """The most tokens a second of continuing prompts that the machine's measured rates allow.

    Args: rates: as of `tokens_per_second`.
    """
    reading = 1e9 * rates[f"{precision}_weights_gb_per_second"]
    multiplying = 1e9 * rates[PRECISIONS[precision].operations]
    begun = prompt_work(config, batch, prompt, precision).seconds(reading, multiplying)
    step = next_token_work(config, batch, prompt + length / 2, precision).seconds(reading, multiplying)
    return batch * length / (begun + length * step)


def text_training_tokens_per_second(
    config: GptConfig, batch: int, length: int, precision: str, rates: dict[str, float]
) -> float:
    """The same as `training_tokens_per_second`, of a GPT."""
    projection = 2 * config.vocab_size * config.d_model * batch * length
    operations = 3 * (prompt_work(config, batch, length, precision).operations + projection)
    return 1e9 * rates[PRECISIONS[precision].operations] * batch * length / operations


def training_tokens_per_second(
    config: TransformerConfig, batch: int, source: int, length: int, precision: str, rates: dict[str, float]
) -> float:
    """The most target tokens a second of training that products at the machine's measured rate allow.

    The backward pass has two products for each of the forward pass: one for what came in and one for the weights.
    """
    encoder = encoder_work(config, batch, source, precision)
    decoder = step_work(config, batch, 1, source, length, precision)
    operations = 3 * (encoder.operations + length * decoder.operations)
    return 1e9 * rates[PRECISIONS[precision].operations] * batch * length / operations
