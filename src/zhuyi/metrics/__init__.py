"""Scores of a model's answers, by known libraries."""

LOWER_IS_BETTER = ("valid_loss", "perplexity", "bits_per_character", "wer", "cer", "mae", "rmse", "mape")
HIGHER_IS_BETTER = ("bleu", "chrf", "accuracy", "macro_f1")
