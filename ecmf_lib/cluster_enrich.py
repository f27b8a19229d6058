"""A local language model on many GPUs: the requests go to actors, the answers into the driver's cache.

The driver holds the talks and is the only one to write the cache; an answer is on disk as soon as it is here. Batches
are those of :meth:`ecmf_lib.enrich_local.LocalEnricher.converse`, so the answers are too. A server
(:class:`ecmf_lib.enrich_llm.LLMEnricher`) needs none of this: its driver waits for many answers at once, and it is the
server that is to be spread over GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from ecmf_lib.cluster_session import ClusterError, data_settings, ray_session
from ecmf_lib.enrich_cache import Replies
from ecmf_lib.enrich_local import SORTED_AT_ONCE, LocalEnricher, LocalModel, batches_of
from ecmf_lib.enrich_prompt import EnrichError
from ecmf_lib.enrich_talk import Reply, Request, Talk

log = logging.getLogger(__name__)

#: Stretches of talks that are sent off together: bounds what the driver holds.
WAVE = 64
#: Times that batches are sent again although none of them comes back.
IN_VAIN = 5


def converse_on_ray(
    enricher: LocalEnricher, talks: Iterable[Talk], replies: Replies, done: Callable[[Talk], None]
) -> None:
    """Bring talks to their end on the actors of a Ray cluster; `done` hears of each.

    Parameters
    ----------
    enricher : LocalEnricher
        Its folder must lie at the same path on all nodes. With ``device="cpu"`` no GPU is asked for.
    talks : iterable of Talk
    replies : Replies
        The cache; it stays in this process.
    done : callable

    Raises
    ------
    EnrichError
        If the model cannot be loaded on a node.
    ClusterError
        If Ray is not there, or keeps losing the same work.
    """
    talks = iter(talks)
    with ray_session() as ray:
        while wave := list(islice(talks, WAVE * SORTED_AT_ONCE * enricher.batch)):
            stretch = SORTED_AT_ONCE * enricher.batch
            stretches = [wave[at : at + stretch] for at in range(0, len(wave), stretch)]
            while stretches := [some for some in stretches if some]:
                _answer(
                    ray, enricher, [batch for some in stretches for batch in batches_of(some, enricher.batch)], replies
                )
                for talk in [talk for some in stretches for talk in some if not talk.request]:
                    done(talk)
                stretches = [[talk for talk in some if talk.request] for some in stretches]


def _answer(ray, enricher: LocalEnricher, batches: list[list[Talk]], replies: Replies) -> None:
    """Give each talk the reply to its request, from the cache if it is there."""
    known = replies.get([talk.request.key for batch in batches for talk in batch])
    waiting: dict[int, list[Talk]] = {}
    for number, batch in enumerate(batches):
        asked = [talk for talk in batch if talk.request.key not in known or known[talk.request.key].failure]
        if asked:
            waiting[number] = asked
    in_vain = 0
    while waiting:
        before = len(waiting)
        for number, answers in _generated(ray, enricher, {n: [t.request for t in some] for n, some in waiting.items()}):
            asked = waiting.pop(number)
            replies.put([(talk.request, talk.cues.id, reply) for talk, reply in zip(asked, answers, strict=True)])
            known |= {talk.request.key: reply for talk, reply in zip(asked, answers, strict=True)}
        in_vain = in_vain + 1 if len(waiting) == before else 0
        if in_vain == IN_VAIN:
            raise ClusterError(
                f"the Ray cluster lost the same {len(waiting)} batches of requests {IN_VAIN} times: look at the memory "
                "of its nodes and at Ray's log, then run again; what was answered is in the cache"
            )
    for batch in batches:
        for talk in batch:
            talk.hear(known[talk.request.key])


def _generated(ray, enricher: LocalEnricher, requests: dict[int, list[Request]]) -> Iterator[tuple[int, list[Reply]]]:
    gpus = 1 if ray.cluster_resources().get("GPU") and enricher.device != "cpu" else 0
    rows = [{"batch": (number, some)} for number, some in requests.items()]
    with data_settings(ray):
        answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Generate,
            batch_size=1,
            fn_constructor_args=(enricher,),
            compute=ray.data.ActorPoolStrategy(min_size=1),
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
        )
        try:
            for row in answers.iter_rows():
                number, said = row["replies"]
                if isinstance(said, Exception):
                    raise said
                yield number, said
        except ray.exceptions.RayError as error:
            log.warning("Ray gave up a part of the run, which is sent again: %s", error)


class _Generate:
    """Held by an actor; the model is loaded with the first batch, so that what is wrong with it is an answer."""

    def __init__(self, enricher: LocalEnricher):
        self._enricher, self._model = enricher, None

    def __call__(self, batch: dict) -> dict:
        ((number, requests),) = batch["batch"]
        try:
            self._model = self._model or LocalModel(self._enricher)
            said = self._model.generate(requests)
        except EnrichError as trouble:
            said = trouble
        except Exception as trouble:
            said = EnrichError(f"{self._enricher.folder}: {type(trouble).__name__}: {trouble}")
        return {"replies": [(number, said)]}
