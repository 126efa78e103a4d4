import pytest

from ltxrt.engines import families
from ltxrt.engines.errors import BundleError, InputError
from ltxrt.engines.families.ltxv.facts import Facts, TextEncoderFacts, TransformerFacts, VaeFacts
from ltxrt.engines.tensorrt import profiles

VAE = VaeFacts(128, 32, 8, (0.0,) * 128, (1.0,) * 128, True, ())
DIT = TransformerFacts(28, 32, 64, 128, 128, 4096, 10000.0, (20.0, 2048.0, 2048.0), True, 1000.0)
FACTS = Facts(DIT, VAE, TextEncoderFacts(4096, 32128, 24), None)


def contract(component):
    return families.derive(component, FACTS)


def test_one_size_is_its_tokens_and_those_of_conditions():
    profile = profiles.parse("512x768x97", FACTS)
    assert {s: profile.ranges[s] for s in "fhw"} == {"f": (13,) * 3, "h": (16,) * 3, "w": (24,) * 3}
    assert profile.ranges["N"] == (4992, 4992, 4992 + 4 * 16 * 24)
    assert profiles.parse("512x768x97", FACTS, extra_frames=0).ranges["N"] == (4992,) * 3
    assert profile.ranges["B"] == (1, 2, 3) and profile.ranges["T"] == (1, 256, 256)


def test_ranges_have_a_usual_size_of_their_own():
    profile = profiles.parse("256..704x256..768..1216x9..161", FACTS)
    assert profile.ranges["f"] == (2, 21, 21)
    assert profile.ranges["w"] == (8, 24, 38)
    assert profile.ranges["N"][:2] == (2 * 8 * 8, 21 * 22 * 24)


def test_shapes_are_the_contract_s():
    shapes = profiles.parse("512x768x97", FACTS).shapes(contract("transformer"))
    assert shapes["latents"] == ((1, 4992, 128), (2, 4992, 128), (3, 6528, 128))
    assert shapes["perturbation_mask"] == ((28, 3, 1), (28, 3, 2), (28, 3, 3))
    assert set(shapes) == {t.name for t in contract("transformer").inputs}


@pytest.mark.parametrize("component", ["vae_encoder", "vae_decoder"])
def test_the_autoencoder_takes_tiles_and_single_images(component):
    profile = profiles.parse("512x768x97", FACTS)
    sizes = {"B": 1, "f": 1, "h": 16, "w": 24}
    assert profile.holds(contract(component), sizes)
    assert profile.holds(contract(component), {**sizes, "f": 6, "h": 8, "w": 8})
    assert not profile.holds(contract(component), {**sizes, "f": 14})
    assert not profile.holds(contract(component), {**sizes, "B": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("512x768", "must be HEIGHTxWIDTHxFRAMES"),
        ("512x768xmany", "must be HEIGHTxWIDTHxFRAMES"),
        ("500x768x97", "height 500: must be a multiple of 32; nearest are 480 and 512"),
        ("512x16x97", "width 16: must be a multiple of 32; nearest is 32"),
        ("512x768x96", "frames 96: must be 8k\\+1; nearest are 89 and 97"),
        ("512x768x0", "frames 0: must be 8k\\+1; nearest is 1"),
        ("704..256x768x97", "704..256 must rise"),
        ("256..704..512x768x97", "256..704..512 must rise"),
    ],
)
def test_wrong_profiles_get_one_sentence(text, message):
    with pytest.raises(InputError, match=message):
        profiles.parse(text, FACTS)


def test_tensors_beyond_32_bits_are_refused_before_a_build():
    huge = profiles.parse("4096x4096x4097", FACTS)
    with pytest.raises(InputError, match=r"vae_encoder would have pixels of .* elements, more than 2.15e"):
        profiles.check(huge, contract("vae_encoder"))
    inside = profiles.parse("704x1216x257", FACTS)
    profiles.check(inside, contract("vae_decoder"))
    with pytest.raises(
        InputError, match=r"a tensor inside of .*; build a smaller profile and decode in tiles"
    ):
        profiles.check(inside, contract("vae_decoder"), elements_per_cell=100_000)


def test_the_narrowest_profile_that_holds_a_call_is_picked():
    wide, narrow = profiles.parse("256..704x256..1216x9..161", FACTS), profiles.parse("512x768x97", FACTS)
    dit = contract("transformer")
    sizes = {"B": 2, "N": 4992, "K": 1, "T": 128}
    assert profiles.pick([wide, narrow], dit, sizes) == 1
    assert profiles.pick([wide, narrow], dit, {**sizes, "N": 900}) == 0
    with pytest.raises(
        InputError, match=r"no profile of the engine holds B=2, N=99999.*512x768x97\); build one"
    ):
        profiles.pick([wide, narrow], dit, {**sizes, "N": 99999})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"N": [1, 2]}, "expected 3 values"),
        ({"N": [1, 2, 10**15]}, "must be between 1 and 2147483647"),
        ({"N": [1, 2, "3"]}, "expected int"),
        ({"N": [3, 2, 1]}, "ranges of N"),
        ({"N": None}, "expected a list"),
    ],
)
def test_a_record_s_profile_is_read_strictly(change, message):
    written = profiles.to_json(profiles.parse("512x768x97", FACTS))
    assert profiles.from_json(written, contract("transformer")) == profiles.parse("512x768x97", FACTS)
    with pytest.raises(BundleError, match="the engine's record holds no profile .*" + message):
        profiles.from_json({**written, "ranges": {**written["ranges"], **change}}, contract("transformer"))
    without = {name: r for name, r in written["ranges"].items() if name != "N"}
    with pytest.raises(BundleError, match="ranges of N"):
        profiles.from_json({**written, "ranges": without}, contract("transformer"))
