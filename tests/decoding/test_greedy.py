import math

import pytest

from zhuyi.decoding import Greedy, Request


def test_each_token_is_the_likeliest(toys):
    decoder = toys.Decoder(9, seed=3)
    request = Request(0, 4, max_new_tokens=12)
    (hypothesis,) = toys.alone(decoder, Greedy(), request)
    table = decoder.log_probs(request, hypothesis.tokens)
    likeliest = table.argmax(-1).tolist()
    assert tuple(likeliest[: len(hypothesis.tokens)]) == hypothesis.tokens
    assert hypothesis.finished == (likeliest[-1] == toys.eos_id and len(hypothesis.tokens) < 12)
    assert hypothesis.score == hypothesis.log_prob


def test_without_scores_the_text_is_the_same(toys):
    decoder = toys.Decoder(9, seed=3)
    request = Request(0, 4, max_new_tokens=12)
    (scored,), (bare,) = (toys.alone(decoder, Greedy(scores=scores), request) for scores in (True, False))
    assert bare.tokens == scored.tokens
    assert math.isnan(bare.log_prob)


def test_one_row_a_request():
    with pytest.raises(ValueError, match="one row"):
        Greedy(width=2)
