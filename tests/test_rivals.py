"""Rival fusions: shapes, masks, gradients, symmetry, stacking, the papers' formulas, and what each can learn."""

import copy

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ecmf_lib import fusion
from ecmf_lib.rivals import RIVALS, clip_level, tensor_size
from ecmf_lib.rivals_mult import AttentionLayer, as_steps, sinusoidal_positions

DIMS = {"face": 5, "audio": 7, "text": 3}
CLASSES = 4
WIDTH = 8
rivals = pytest.mark.parametrize("name", RIVALS)
WEIGHING = ("gmu", "moe")
#: Clip level for all, and frame level with a number of steps of each stream's own.
levels = pytest.mark.parametrize("steps", [None, (3, 2, 4)], ids=["clip level", "frame level"])


@pytest.fixture(autouse=True)
def one_thread():
    """These tensors are too small to share: with two threads on busy cores the tests took eight times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(name, *, seed=0, dims=DIMS, **options):
    torch.manual_seed(seed)
    return RIVALS[name](dims, CLASSES, width=WIDTH, **options)


def batch(n=6, *, steps=None, dims=DIMS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n, dim) if steps is None else (n, steps[i], dim) for i, dim in enumerate(dims.values())]
    return {name: torch.randn(*shape, generator=generator) for name, shape in zip(dims, shapes, strict=True)}


def everything(n=6, dims=DIMS):
    return torch.ones(n, len(dims), dtype=torch.bool)


@rivals
@levels
def test_shapes(name, steps):
    out = make(name)(batch(steps=steps), everything())
    opinions = {"moe": 4}.get(name, 0)
    assert isinstance(make(name), fusion.Fusion)
    assert out.logits.shape == (6, CLASSES)
    assert out.weights.shape == (6, 3 if name in WEIGHING else 0)
    assert out.stream_logits.shape == (6, opinions, CLASSES)


@rivals
def test_a_single_stream_is_enough(name):
    dims = {"audio": 7}
    x = batch(steps=(3,), dims=dims)
    logits = make(name, dims=dims)(x, everything(dims=dims)).logits
    assert logits.shape == (6, CLASSES) and torch.isfinite(logits).all()


@rivals
@levels
def test_what_stands_in_for_a_missing_stream_reaches_nothing(name, steps):
    model, x, present = make(name).eval(), batch(steps=steps), everything()
    present[::2, 1] = False
    other = {name: z.clone() for name, z in x.items()}
    other["audio"][::2] = 1e4
    for a, b in zip(model(x, present), model(other, present), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(model(x, everything()).logits, model(other, everything()).logits)  # but if present it does


@pytest.mark.parametrize("name", WEIGHING)
def test_missing_streams_get_no_weight(name):
    present = everything()
    present[:3, 0] = False
    present[5] = False
    weights = make(name).eval()(batch(), present).weights
    assert (weights[~present] == 0).all() and (weights[present] > 0).all()
    if name == "moe":
        assert torch.allclose(weights[:5].sum(1), torch.ones(5))


@rivals
@levels
def test_a_clip_without_any_stream_is_finite_in_value_and_gradient(name, steps):
    model, present = make(name), everything()
    present[0] = False
    out = model(batch(steps=steps), present)
    (F.cross_entropy(out.logits, torch.arange(6) % CLASSES) + out.stream_logits.square().sum()).backward()
    assert all(torch.isfinite(part).all() for part in out)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@rivals
def test_every_parameter_learns(name):
    """Several steps, as MulT's queries and keys cannot matter where there is but one step to look at."""
    model = make(name, dropout=0.0)
    out = model(batch(32, steps=(3, 2, 4)), everything(32))
    loss = F.cross_entropy(out.logits, torch.arange(32) % CLASSES) + out.stream_logits.square().sum()
    loss.backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not dead


@rivals
def test_stacked_members_give_what_each_gives_alone(name):
    """As :mod:`ecmf_lib.fit` trains them: in train mode, with the same dropout masks for all members."""
    models = [make(name, seed=seed, dropout=0.0, input_dropout=0.0) for seed in range(3)]
    stack, buffers = stack_module_state(models)
    model, x = copy.deepcopy(models[0]), batch(steps=(3, 2, 4))
    present = everything().expand(3, 6, 3).clone()
    present[1, :4, 0] = False
    present[2, 0] = False

    def one(params, present):
        return functional_call(model, params, (x, present))

    out = vmap(one, randomness="same")(stack, present)
    assert not buffers
    for i, alone in enumerate(models):
        for a, b in zip(out, alone(x, present[i]), strict=True):
            assert torch.allclose(a[i], b, atol=1e-5)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    out = vmap(one, randomness="same")(stack, present)
    (out.logits.square().sum() + out.stream_logits.square().sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in stack.values())


@rivals
@levels
def test_permuting_streams_permutes_the_weights_and_nothing_else(name, steps):
    model, x, present = make(name).eval(), batch(steps=steps), everything()
    present[0, 2] = present[1, 0] = False
    order = [2, 0, 1]
    names = [list(DIMS)[i] for i in order]
    other = make(name, seed=5, dims={name: DIMS[name] for name in names}).eval()
    other.load_state_dict(_permuted(name, model, other, order))
    a, b = model(x, present), other({name: x[name] for name in names}, present[:, order])
    assert torch.allclose(a.logits, b.logits, atol=1e-5)
    if name in WEIGHING:
        assert torch.allclose(a.weights[:, order], b.weights, atol=1e-6)


def _permuted(name, model, other, order):
    """Parameters of the same model with its streams in another order: new stream i is old stream order[i]."""
    count, new = len(order), {old: i for i, old in enumerate(order)}
    if name == "mult":
        return _permuted_mult(model, other, order)
    found = {}
    for key, value in model.state_dict().items():
        head, _, rest = key.partition(".")
        if head in ("project", "reduce", "experts") or (key.startswith("gate.") and name == "gmu"):
            old, _, leaf = rest.partition(".")
            if head == "gate":  # GMU: its outputs, too, are one block a stream
                value = value.view(count, WIDTH, -1)[order].flatten(0, 1)
            found[f"{head}.{new[int(old)]}.{leaf}"] = value
        elif head in ("factors", "gate_bias"):
            found[key] = value[order]
        elif key == "first.weight":  # TFN: one axis of the tensor a stream
            tensor = value.view(-1, *[model.size + 1] * count)
            found[key] = tensor.permute(0, *[1 + i for i in order]).flatten(1)
        elif key in ("join.weight", "look.weight"):  # mixture of experts: the concatenation of all streams comes in
            found[key] = value.view(value.shape[0], count, WIDTH)[:, order].flatten(1)
        elif head == "gate":  # mixture of experts: one output a stream, then the joined expert's
            found[key] = value[[*order, count]]
        else:
            found[key] = value
    return found


def _permuted_mult(model, other, order):
    """MulT's pairs of streams change places, and with them what each target hears, side by side, and the summaries."""
    pairs = [(order[i], order[j]) for i, j in other.pairs]  # old numbers, in the new order
    found = {}
    for key, value in model.state_dict().items():
        head, _, rest = key.partition(".")
        number, _, leaf = rest.partition(".")
        if head in ("project", "join", "own"):
            old = int(number)
            if key == f"join.{number}.weight":
                before = [pair for pair in model.pairs if pair[0] == old]
                heard = [before.index(pair) for pair in pairs if pair[0] == old]
                value = value.view(WIDTH, -1, WIDTH)[:, heard].flatten(1)
            found[f"{head}.{order.index(old)}.{leaf}"] = value
        elif head == "cross":
            found[f"cross.{pairs.index(model.pairs[int(number)])}.{leaf}"] = value
        else:  # the MLP and the classifier, which see the summaries side by side
            if head == "second":
                value = value.view(len(order), WIDTH, *value.shape[1:])[order].flatten(0, 1)
            elif value.dim() == 2:
                value = value.view(value.shape[0], len(order), WIDTH)[:, order].flatten(1)
            found[key] = value
    return found


def train(model, x, labels, epochs=200):
    present = torch.ones(len(labels), len(x), dtype=torch.bool)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(epochs):
        optimiser.zero_grad()
        F.cross_entropy(model(x, present).logits, labels).backward()
        optimiser.step()
    return (model.eval()(x, present).logits.argmax(1) == labels).float().mean()


@rivals
def test_fits_a_problem_that_needs_two_streams_together(name):
    """XOR of the signs of two streams: no sum of per-stream opinions solves it, a fusion must."""
    torch.manual_seed(0)
    x = {"face": torch.randn(256, 2), "audio": torch.randn(256, 2)}
    labels = ((x["face"][:, 0] > 0) ^ (x["audio"][:, 0] > 0)).long()
    model = RIVALS[name]({"face": 2, "audio": 2}, 2, width=16, dropout=0.0, input_dropout=0.0)
    assert train(model, x, labels, 100) > 0.95


@pytest.mark.parametrize("name", [name for name in RIVALS if name != "mult"])
def test_clip_level_rivals_average_the_steps(name):
    model, x = make(name).eval(), batch(steps=(3, 2, 4))
    mean = {key: z.mean(1) for key, z in x.items()}
    assert torch.allclose(model(x, everything()).logits, model(mean, everything()).logits, atol=1e-6)


def test_lmf_is_a_full_tensor_contracted_with_the_outer_product():
    """The weight tensor its factors stand for (the paper's equations 2 to 4), made in full for three streams."""
    model, x = make("lmf", rank=3).eval(), batch()
    own = [F.relu(project(z)) for project, z in zip(model.project, x.values(), strict=True)]
    face, audio, text = (torch.cat([z, torch.ones(6, 1)], 1) for z in own)
    tensor = torch.einsum("r,rio,rjo,rko->ijko", model.rank_weights, *model.factors)
    fused = torch.einsum("bi,bj,bk,ijko->bo", face, audio, text, tensor) + model.bias
    assert torch.allclose(model(x, everything()).logits, model.classify(fused), atol=1e-4)


def test_lmf_without_a_stream_keeps_the_constants_factor():
    model, present = make("lmf", rank=1, dims={"face": 5, "text": 3}).eval(), everything(dims={"face": 5, "text": 3})
    x = batch(dims={"face": 5, "text": 3})
    present[:, 1] = False
    face = torch.cat([F.relu(model.project[0](x["face"])), torch.ones(6, 1)], 1)
    joint = (face @ model.factors[0, 0]) * model.factors[1, 0, -1] * model.rank_weights[0] + model.bias
    assert torch.allclose(model(x, present).logits, model.classify(joint), atol=1e-5)


def test_lmf_starts_with_every_stream_heard():
    """Plain Xavier factors of five streams multiply to nearly nothing; ours leave numbers of the order of 1."""
    dims = dict.fromkeys("abcde", 16)
    torch.manual_seed(0)
    model = RIVALS["lmf"](dims, CLASSES).eval()
    fused = []
    model.classify.register_forward_hook(lambda _, given, __: fused.append(given[0]))
    model(batch(64, dims=dims), everything(64, dims))
    assert 0.05 < fused[0].std(0).mean() < 5


def test_tfn_is_the_outer_product_of_all_streams():
    model, x = make("tfn").eval(), batch()
    face, audio, text = model.vectors(x, everything())
    assert (face[:, -1] == 1).all() and face.shape == (6, WIDTH + 1)
    expected = torch.einsum("bi,bj,bk->bijk", face, audio, text)
    assert torch.allclose(model.outer_product([face, audio, text]), expected.flatten(1))
    by_hand = torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0, 7.0, 1.0]])
    assert model.outer_product(list(by_hand)).tolist() == [[15, 21, 3, 5, 7, 1]]


@pytest.mark.parametrize(("streams", "size"), [(1, 64), (2, 63), (3, 15), (4, 7), (5, 4), (12, 1)])
def test_the_tensor_of_tfn_stays_within_bounds(streams, size):
    assert tensor_size(streams, 4096, 64) == size
    assert (size + 1) ** streams <= 4096


def test_gmu_follows_its_formula():
    model, x = make("gmu").eval(), batch()
    together = torch.cat(list(x.values()), 1)
    matrix = torch.cat([gate.weight for gate in model.gate], 1)  # [streams · width, all features]
    gates = torch.sigmoid((together @ matrix.T).view(6, 3, WIDTH) + model.gate_bias)
    fused = sum(gates[:, i] * torch.tanh(model.project[i](z)) for i, z in enumerate(x.values()))
    out = model(x, everything())
    assert torch.allclose(out.logits, model.classify(fused), atol=1e-6)
    assert torch.allclose(out.weights, gates.mean(-1), atol=1e-6)


def test_the_mixture_mixes_the_probabilities_of_those_present():
    model, x, present = make("moe").eval(), batch(), everything()
    present[0, 1] = present[1, 0] = present[1, 2] = False
    present[2] = False
    out = model(x, present)
    probability = out.logits.exp()
    assert torch.allclose(probability.sum(1), torch.ones(6), atol=1e-6)
    experts = out.stream_logits.softmax(-1)
    assert torch.allclose(probability[2], experts[2, 3], atol=1e-6)  # without any stream the joined expert decides
    # Clip 1 has stream 1 only: its mixture lies between that expert's opinion and the joined one's.
    low, high = experts[1, [1, 3]].min(0).values, experts[1, [1, 3]].max(0).values
    assert ((probability[1] >= low - 1e-6) & (probability[1] <= high + 1e-6)).all()
    share = ((probability[1] - experts[1, 3]) / (experts[1, 1] - experts[1, 3])).mean()
    assert torch.allclose(probability[1], share * experts[1, 1] + (1 - share) * experts[1, 3], atol=1e-5)


def test_the_mixture_is_stable_for_experts_that_are_sure_of_themselves():
    model = make("moe", dropout=0.0, input_dropout=0.0)
    with torch.no_grad():
        for expert in (*model.experts, model.joined, model.gate):
            expert.weight.mul_(1e4)
    out = model(batch(), everything())
    F.cross_entropy(out.logits, torch.arange(6) % CLASSES).backward()
    assert torch.isfinite(out.logits).all() and all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_only_mult_sees_the_order_of_steps():
    x = batch(steps=(4, 4, 4))
    turned = x | {"face": x["face"].flip(1)}
    for name in RIVALS:
        model = make(name).eval()
        a, b = model(x, everything()).logits, model(turned, everything()).logits
        assert torch.allclose(a, b, atol=1e-6) is (name != "mult")


def test_mult_fits_a_problem_about_when_two_streams_change():
    """Each stream has one pulse; the label is whose comes first. Means over time are the same for both classes."""
    torch.manual_seed(0)
    first, second = torch.randint(4, (256,)), torch.randint(4, (256,))
    second = torch.where(first == second, (second + 1) % 4, second)
    x = {"face": F.one_hot(first, 4)[..., None].float(), "audio": F.one_hot(second, 4)[..., None].float()}
    labels = (first < second).long()
    options = dict(width=16, dropout=0.0, input_dropout=0.0)
    assert train(RIVALS["mult"]({"face": 1, "audio": 1}, 2, **options), x, labels, 60) > 0.95
    assert train(RIVALS["lmf"]({"face": 1, "audio": 1}, 2, **options), x, labels, 60) < 0.7


def test_mult_at_clip_level_is_mult_with_one_step():
    model, x = make("mult").eval(), batch()
    steps = {name: z[:, None] for name, z in x.items()}
    assert torch.equal(model(x, everything()).logits, model(steps, everything()).logits)


def test_mults_attention_is_torchs_from_target_to_source():
    torch.manual_seed(0)
    layer, known = AttentionLayer(8, 2, 0.0), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    known.in_proj_weight.data = torch.cat([layer.query.weight, layer.key_value.weight])
    known.in_proj_bias.data = torch.cat([layer.query.bias, layer.key_value.bias])
    known.out_proj.load_state_dict(layer.out.state_dict())
    target, source = torch.randn(5, 3, 8), torch.randn(5, 4, 8)
    seen = known(layer.norm_target(target), layer.norm_source(source), layer.norm_source(source))[0]

    def fed_forward(x):
        return x + layer.narrow(F.relu(layer.widen(layer.forward_norm(x))))

    there = torch.ones(5, 1, 1, dtype=torch.bool)
    assert torch.allclose(layer(target, source, there), fed_forward(target + seen), atol=1e-5)
    assert torch.allclose(
        layer(target, source, ~there), fed_forward(target), atol=1e-6
    )  # a missing source adds nothing


def test_mult_is_crossmodal_then_self_attention_then_a_residual_mlp():
    dims = {"face": 5, "audio": 7}
    model, x, present = make("mult", dims=dims).eval(), batch(steps=(3, 2), dims=dims), everything(dims=dims)
    present[:2, 1] = False
    there = present[:, 0, None, None], present[:, 1, None, None]
    own = [project(z) * t for project, z, t in zip(model.project, x.values(), there, strict=True)]
    face, audio = (z + sinusoidal_positions(z) for z in own)
    face, audio = model.cross[0](face, audio, there[1]), model.cross[1](audio, face, there[0])
    face, audio = (model.own[i](model.join[i](z), None, there[i]).mean(1) for i, z in enumerate((face, audio)))
    joint = torch.cat([face, audio * present[:, 1:]], 1)
    expected = model.classify(joint + model.second(F.relu(model.first(joint))))
    assert torch.allclose(model(x, present).logits, expected, atol=1e-5)


def test_mult_layers_are_what_the_option_says():
    model = make("mult", layers=2, heads=2)
    assert len(model.cross) == 6 and all(len(cross.layers) == 2 for cross in model.cross)
    assert model(batch(steps=(3, 2, 4)), everything()).logits.shape == (6, CLASSES)


def test_positions_are_sines_and_cosines_of_falling_speed():
    codes = sinusoidal_positions(torch.zeros(2, 5, 4))
    angles = torch.arange(5.0)[:, None] * torch.tensor([1, 0.01])
    assert torch.allclose(codes, torch.cat([angles.sin(), angles.cos()], 1), atol=1e-6)


def test_levels_of_a_stream(rng):
    frames = torch.from_numpy(rng.normal(size=(2, 3, 4)))
    assert torch.equal(clip_level(frames), frames.mean(1)) and as_steps(frames) is frames
    clips = frames[:, 0]
    assert clip_level(clips) is clips and torch.equal(as_steps(clips), clips[:, None])


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("lmf", {"rank": 0}, "at least one term"),
        ("tfn", {"max_tensor": 7}, "3 streams need at least 8"),
        ("mult", {"heads": 3}, "multiple of heads"),
        ("mult", {"layers": 0}, "at least one"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, told):
    with pytest.raises(ValueError, match=told):
        make(name, **options)
