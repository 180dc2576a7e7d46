"""BLEU and chrF by sacreBLEU, with the signature without which a BLEU means nothing."""

from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics import BLEU, CHRF

# Languages whose words no space divides; the rest are cut as WMT does (13a).
_TOKENIZATION = {"zh": "zh", "cmn": "zh", "yue": "zh", "lzh": "zh", "ja": "char", "ko": "char", "th": "char"}


def bleu_tokenization(target_language: str) -> str:
    """How sacreBLEU cuts words of a language: `zh` cuts at Chinese characters."""
    return _TOKENIZATION.get(target_language.lower().replace("_", "-").split("-")[0], "13a")


def translation_scores(
    hypotheses: Sequence[str],
    references: Sequence[str | Sequence[str]],
    target_language: str,
    *,
    lowercase: bool = False,
) -> dict[str, Any]:
    """`bleu` and `chrf` (0 to 100) of a corpus, and the signature of the BLEU.

    Args:   references: one or several of each hypothesis.
    """
    several = [[each] if isinstance(each, str) else each for each in references]
    most = max(map(len, several), default=1)
    streams: list[list[Any]] = [[each[i] if i < len(each) else None for each in several] for i in range(most)]
    bleu = BLEU(tokenize=bleu_tokenization(target_language), lowercase=lowercase)
    score = bleu.corpus_score(list(hypotheses), streams).score
    chrf = CHRF().corpus_score(list(hypotheses), streams).score
    return {"bleu": round(score, 2), "chrf": round(chrf, 2), "signature": str(bleu.get_signature())}
