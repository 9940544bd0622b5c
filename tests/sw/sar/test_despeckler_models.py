"""The despecklers: the published network against its published table, ours against their budget."""

import numpy as np
import pytest
import torch
from nearflash.contract.errors import ConfigError
from nearflash.sar.models import MODELS, build, count_macs, count_parameters, grow, without_phases
from nearflash.sar.models.blocks import SpatialReductionAttention, TransformerBlock, smooth

# stage: channels, grid at 256x256, KV tokens, parameters (Perera et al., IGARSS 2022)
PUBLISHED = ((32, 128, 256, 225_888), (64, 64, 64, 909_440), (128, 32, 64, 1_663_104), (320, 16, 64, 7_802_560),
             (512, 8, 64, 7_811_584))


@pytest.fixture(scope="module")
def paper():
    return build("paper").eval()


def test_paper_stages(paper):
    shapes, keys = [], []
    hooks = [stage.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape))) for stage in paper.stages]
    hooks += [stage.blocks[0].attn.kv.register_forward_hook(lambda m, i, o: keys.append(o.shape[1]))
              for stage in paper.stages]
    with torch.no_grad():
        out = paper(torch.rand(1, 1, 256, 256), torch.ones(1))
    for hook in hooks:
        hook.remove()
    assert shapes == [(1, c, g, g) for c, g, _, _ in PUBLISHED]
    assert keys == [k for _, _, k, _ in PUBLISHED]
    assert out.shape == (1, 1, 256, 256)
    assert out.abs().max() <= 1


def test_paper_counts(paper):
    assert [count_parameters(s) for s in paper.stages] == [p for *_, p in PUBLISHED]
    assert count_parameters(paper.decoder) == 5_686_625
    assert count_parameters(paper) == 24_099_201
    assert round(count_macs(paper) / 1e9, 3) == 6.743


def test_paper_initialisation(paper):
    linear = paper.stages[4].blocks[0].ffn.fc1.weight
    assert abs(float(linear.detach().std()) - 0.02) < 0.001
    conv = paper.stages[2].embed.weight  # 3x3, 128 outputs
    assert abs(float(conv.detach().std()) / np.sqrt(2 / (9 * 128)) - 1) < 0.05


HEADLESS = dict(head=0, encoder=[1, 1, 3, 3, 2], decoder=[2, 1, 2, 1])  # recipe base-texture


@pytest.mark.parametrize(("name", "options"), [("base", {}), ("tiny", {}), ("base", HEADLESS)])
def test_budget(name, options):
    net = build(name, **options)
    assert count_parameters(net) <= 3e6
    assert count_macs(net) <= 2.5e9


@pytest.mark.parametrize("name", ["base", "tiny", "unet"])
@pytest.mark.parametrize("shape", [(32, 32), (64, 96)])
def test_shape_sign_and_batch_independence(name, shape):
    torch.manual_seed(3)
    net = build(name).eval()
    with torch.no_grad():
        for p in net.parameters():  # the residual output starts at zero: give every layer something to say
            p.add_(torch.randn_like(p) * 0.02)
        x = torch.rand(2, 1, *shape) * 2
        looks = torch.tensor([1.0, 4.0])
        both = net(x, looks)
        one = net(x[1:], looks[1:])
    assert both.shape == x.shape
    assert (both >= 0).all()
    assert torch.isfinite(both).all()
    torch.testing.assert_close(both[1:], one, rtol=1e-4, atol=1e-5)


def test_attention_is_the_textbook_one():
    torch.manual_seed(0)
    attn = SpatialReductionAttention(32, heads=2, reduction=2, pool=True, bias=True)
    x = torch.randn(1, 32, 4, 6)
    with torch.no_grad():
        got = attn(x)
        flat = x[0].reshape(32, 24).T
        pooled = x[0].reshape(32, 2, 2, 3, 2).mean((2, 4)).reshape(32, 6).T
        q = attn.q(flat)
        kv = attn.kv(pooled)
        rows = []
        for h in range(2):
            part = slice(16 * h, 16 * h + 16)
            k, v = kv[:, :32][:, part], kv[:, 32:][:, part]
            logits = q[:, part] @ k.T / 4
            e = torch.exp(logits)
            rows.append(e @ v / e.sum(1, keepdim=True))
        expected = attn.proj(torch.cat(rows, 1)).T.reshape(1, 32, 4, 6)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_grid_smaller_than_the_reduction():
    block = TransformerBlock(32, 1, 4, pool=True)
    assert block(torch.randn(1, 32, 1, 2)).shape == (1, 32, 1, 2)


def test_looks_matter_only_when_conditioned():
    x = torch.rand(1, 1, 32, 32)
    for looks in (True, False):
        torch.manual_seed(1)
        net = build("tiny", looks=looks)
        with torch.no_grad():
            net.out.weight.normal_(std=0.1)
            same = torch.equal(net(x, torch.ones(1)), net(x, torch.full((1,), 9.0)))
        assert same is not looks


def test_smoothing_keeps_the_mean_and_nothing_at_half_the_sampling_rate():
    x = torch.full((1, 2, 8, 10), 3.0)
    torch.testing.assert_close(smooth(x), x)
    x[:, 1] = torch.tensor([1.0, -1.0]).repeat(5)
    assert smooth(x)[0, 1, :, 1:-1].abs().max() < 1e-6
    x[:, 1] = 0
    x[:, 1, 4, 4] = 16
    torch.testing.assert_close(smooth(x)[0, 1, 3:6, 3:6], torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]))


def test_with_a_head_every_pixel_of_even_ground_is_made_alike():
    """Whatever its weights, far from edges there is no pattern; without a head the pixels of a 2x2 block differ."""
    spread = []
    for options in (dict(head=8), {}):
        torch.manual_seed(2)
        net = build("tiny", position=False, **options).eval()
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p) * 0.05)
            out = net(torch.full((1, 1, 192, 192), 0.5), torch.ones(1))[0, 0, 64:128, 64:128]
        phases = out.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).mean((0, 2))
        spread.append(float((phases.max() - phases.min()) / out.mean()))
    assert spread[0] < 1e-3
    assert spread[1] > 0.01


def test_a_network_with_a_head_goes_on_from_one_without():
    torch.manual_seed(1)
    old, new = build("tiny", decoder=[2, 1, 1, 1]), build("tiny", head=8)
    state = without_phases(new, old.state_dict())
    new.load_state_dict(grow(new, state))
    torch.testing.assert_close(new.stem.weight, old.stem.weight)
    torch.testing.assert_close(new.decoder[0][0].conv1.weight, old.decoder[0][0].conv1.weight)
    x = torch.rand(1, 64, 4, 4)
    # the mean of a block's four pixels
    blocks = torch.nn.functional.avg_pool2d(old.up[3](x), 2)
    torch.testing.assert_close(new.up[3].conv(x), blocks, rtol=1e-4, atol=1e-6)
    assert without_phases(old, old.state_dict()).keys() == old.state_dict().keys()
    own = {k: v + 1 for k, v in new.state_dict().items()}
    assert all(torch.equal(v, own[k]) for k, v in without_phases(new, own).items())


def test_refused():
    with pytest.raises(ConfigError, match=r"model\.head = 8"):
        build("tiny", head=8, output="log")
    with pytest.raises(ConfigError, match=r"nonsense.*base, tiny, paper, unet"):
        build("nonsense")
    with pytest.raises(ConfigError, match=r"model\.width"):
        build("base", width=3)
    with pytest.raises(ConfigError, match=r"model\.output = 'linear'"):
        build("tiny", output="linear")
    with pytest.raises(ConfigError, match="multiple of head_dim"):
        build("tiny", widths=[16, 32, 33, 64, 64])
    with pytest.raises(ConfigError, match="paper"):
        build("paper", widths=[1])
    assert set(MODELS) == {"base", "tiny", "paper", "unet"}
