"""One file a paper. `MODELS` says which names a config may use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from zhuyi.models.bert import PUBLISHED_SIZES as BERT_SIZES
from zhuyi.models.bert import Bert, BertConfig
from zhuyi.models.gman import PUBLISHED_SIZES as GMAN_SIZES
from zhuyi.models.gman import Gman, GmanConfig
from zhuyi.models.gpt import PUBLISHED_SIZES as GPT_SIZES
from zhuyi.models.gpt import Gpt, GptConfig
from zhuyi.models.seq2seq import PUBLISHED_SIZES as SEQ2SEQ_SIZES
from zhuyi.models.seq2seq import Seq2Seq, Seq2SeqConfig
from zhuyi.models.t5 import PUBLISHED_SIZES as T5_SIZES
from zhuyi.models.t5 import T5, T5Config
from zhuyi.models.transformer import PUBLISHED_SIZES, Transformer, TransformerConfig
from zhuyi.models.vit import PUBLISHED_SIZES as VIT_SIZES
from zhuyi.models.vit import Vit, VitConfig
from zhuyi.models.whisper import PUBLISHED_SIZES as WHISPER_SIZES
from zhuyi.models.whisper import Whisper, WhisperConfig


@dataclass(frozen=True)
class Architecture:
    """A model's config class, its module (built from a config alone) and its published sizes."""

    config: type[Any]
    module: Callable[[Any], nn.Module]
    sizes: dict[str, Any]


MODELS: dict[str, Architecture] = {
    "transformer": Architecture(TransformerConfig, Transformer, dict(PUBLISHED_SIZES)),
    "seq2seq": Architecture(Seq2SeqConfig, Seq2Seq, dict(SEQ2SEQ_SIZES)),
    "bert": Architecture(BertConfig, Bert, dict(BERT_SIZES)),
    "gpt": Architecture(GptConfig, Gpt, dict(GPT_SIZES)),
    "t5": Architecture(T5Config, T5, dict(T5_SIZES)),
    "vit": Architecture(VitConfig, Vit, dict(VIT_SIZES)),
    "whisper": Architecture(WhisperConfig, Whisper, dict(WHISPER_SIZES)),
    "gman": Architecture(GmanConfig, Gman, dict(GMAN_SIZES)),
}
