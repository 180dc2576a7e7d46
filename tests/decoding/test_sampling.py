import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zhuyi.decoding import Request, Sampling, run
from zhuyi.decoding.sampling import stream_keys, uniforms


def expected_probs(logits, rule):
    """The cuts as their papers and Hugging Face transformers define them, on one row in float64."""
    probs = np.exp((logits - logits.max()) / rule.temperature)
    probs /= probs.sum()
    order = np.argsort(-probs, kind="stable")
    if rule.top_k:
        probs[order[rule.top_k :]] = 0
        probs /= probs.sum()
    if rule.top_p < 1:
        before = np.cumsum(probs[order]) - probs[order]
        beyond = order[before >= rule.top_p]
        probs[beyond] = 0
        probs /= probs.sum()
    probs[probs < rule.min_p * probs.max()] = 0
    return probs / probs.sum()


rules = st.builds(
    Sampling,
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 7, 1000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
)


@settings(max_examples=50, deadline=None)
@example(rule=Sampling(top_p=0.5), vocab_size=128, seed=0)
@example(rule=Sampling(top_p=0.95, temperature=2.5), vocab_size=700, seed=0)
@example(rule=Sampling(top_k=7, top_p=0.8, min_p=0.02), vocab_size=300, seed=0)
@example(rule=Sampling(min_p=0.02, temperature=0.3), vocab_size=300, seed=0)
@given(rule=rules, vocab_size=st.sampled_from([1, 5, 128, 300, 700]), seed=st.integers(0, 1000))
def test_an_even_comb_of_draws_gives_each_token_its_share(rule, vocab_size, seed):
    logits = torch.randn(vocab_size, generator=torch.Generator().manual_seed(seed)) * 3
    count = 1000
    draws = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens = rule.draw(logits.expand(count, -1).clone(), draws)
    shares = np.bincount(tokens.numpy(), minlength=vocab_size) / count
    expected = expected_probs(logits.double().numpy(), rule)
    assert np.abs(shares - expected).max() <= 1.01 / count + 1e-5
    assert not shares[expected == 0].any()


@pytest.mark.parametrize("rule", [Sampling(), Sampling(top_k=3), Sampling(top_p=0.7), Sampling(min_p=0.2)], ids=str)
def test_no_draw_reaches_a_forbidden_token(rule):
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 2.0, -torch.inf]]).expand(4, -1).clone()
    draws = torch.tensor([0.0, 1e-300, 0.5, 1 - 2.0**-52], dtype=torch.float64)
    assert set(rule.draw(logits, draws).tolist()) <= {1, 3}


def test_a_flat_distribution_over_many_tokens_keeps_its_top_p():
    logits = torch.zeros(1, 3000)
    draws = torch.tensor([0.999], dtype=torch.float64)
    tokens = Sampling(top_p=0.9).draw(logits.expand(200, -1).clone(), torch.linspace(0, 0.9999, 200).double())
    assert len(set(tokens.tolist())) > 195
    assert Sampling(top_p=0.9).draw(logits, draws).shape == (1,)


def test_random_numbers_are_splitmix64():
    keys, positions = np.full(5, 1234567, dtype=np.uint64), np.arange(5, dtype=np.uint64)
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert uniforms(keys, positions).tolist() == [(number >> 12) / 2**52 for number in published]


def test_random_numbers_of_seeds_samples_and_positions_are_unrelated():
    keys = np.concatenate([stream_keys(seed, 4) for seed in range(-20, 20)])
    assert len(set(keys.tolist())) == 160
    draws = np.stack([uniforms(keys, np.full(160, n, dtype=np.uint64)) for n in range(60)])  # (60, 160)
    assert abs(draws.mean() - 0.5) < 0.01
    assert abs(draws.var() - 1 / 12) < 0.002
    correlations = np.corrcoef(draws.T) - np.eye(160)
    assert np.abs(correlations).max() < 0.65  # 12,720 pairs of 60 numbers: 0.65 is beyond 5 standard deviations
    assert np.abs(np.corrcoef(draws) - np.eye(60)).max() < 0.4


def test_samples_of_a_seed_begin_alike_however_many_are_asked_for(toys):
    assert stream_keys(7, 5)[:2].tolist() == stream_keys(7, 2).tolist()
    decoder = toys.Decoder(12, seed=1)
    request = Request(0, 0, max_new_tokens=8, seed=7)
    few, many = (toys.alone(decoder, Sampling(samples=samples), request) for samples in (2, 5))
    assert [h.tokens for h in many[:2]] == [h.tokens for h in few]
    assert len({h.tokens for h in many}) > 1


def test_the_first_two_tokens_have_the_decoders_distribution(toys):
    decoder = toys.Decoder(5, seed=4, sharpness=1.0)
    count = 2000
    requests = (Request(i, inputs=9, max_new_tokens=2, seed=i) for i in range(count))
    seen = {}
    for hypotheses in toys.results(run(toys.search(decoder, Sampling()), requests, max_rows=1000)).values():
        tokens = hypotheses[0].tokens
        seen[tokens] = seen.get(tokens, 0) + 1
    request = Request(0, inputs=9, max_new_tokens=2)
    chi_square, cells = 0.0, 0
    for first in range(5):
        table = decoder.log_probs(request, [first]).exp()
        seconds = [0, 1, 3, 4] if first != toys.eos_id else [None]
        for second in [*seconds, toys.eos_id] if first != toys.eos_id else seconds:
            prob = float(table[0, first]) * (1.0 if second is None else float(table[1, second]))
            written = tuple(token for token in (first, second) if token not in (None, toys.eos_id))
            chi_square += (seen.get(written, 0) - count * prob) ** 2 / (count * prob)
            cells += 1
    assert cells == 21
    assert chi_square < 52.4  # 20 degrees of freedom: 1 in 10,000


def test_log_prob_is_the_models_own_whatever_the_cuts(toys):
    decoder = toys.Decoder(12, seed=3)
    request = Request(0, 5, max_new_tokens=9, seed=3)
    for hypothesis in toys.alone(decoder, Sampling(temperature=0.5, top_k=3, samples=4), request):
        assert hypothesis.log_prob == pytest.approx(decoder.score(request, hypothesis), abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 5e-324},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"samples": 0},
    ],
)
def test_impossible_settings_are_refused(options):
    ((name, _),) = options.items()
    with pytest.raises(ValueError, match=f"^{name} is"):
        Sampling(**options)
