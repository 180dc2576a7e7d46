"""Search over any decoder that has a `step` and a state with `select` and `join`."""

from zhuyi.decoding.beam_search import Beam
from zhuyi.decoding.filters import (
    FOR_EVER,
    Filter,
    Foreseen,
    KeepForm,
    MinimumLength,
    NoRepeatNgram,
    RepetitionGuard,
    RepetitionPenalty,
    Suppress,
)
from zhuyi.decoding.greedy import Greedy
from zhuyi.decoding.guards import is_translatable, max_output_tokens, repeats, trim_repetition
from zhuyi.decoding.lanes import num_lanes, run_in_lanes
from zhuyi.decoding.recording import Beginning, Recorded, way_to_the_best
from zhuyi.decoding.requests import Event, Form, Hypothesis, Request
from zhuyi.decoding.rows import Rows
from zhuyi.decoding.sampling import Sampling
from zhuyi.decoding.search import Rule, Search, State, run
from zhuyi.decoding.term_beam import TermBeam
from zhuyi.decoding.terms import Term, Terms, Way, WordBorders, occurrences

__all__ = [
    "FOR_EVER",
    "Beam",
    "Beginning",
    "Event",
    "Filter",
    "Foreseen",
    "Form",
    "Greedy",
    "Hypothesis",
    "KeepForm",
    "MinimumLength",
    "NoRepeatNgram",
    "Recorded",
    "RepetitionGuard",
    "RepetitionPenalty",
    "Request",
    "Rows",
    "Rule",
    "Sampling",
    "Search",
    "State",
    "Suppress",
    "Term",
    "TermBeam",
    "Terms",
    "Way",
    "WordBorders",
    "is_translatable",
    "max_output_tokens",
    "num_lanes",
    "occurrences",
    "repeats",
    "run",
    "run_in_lanes",
    "trim_repetition",
    "way_to_the_best",
]
