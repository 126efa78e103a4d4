import pickle

import pytest

from ltxrt.engines.errors import BundleError, EngineError, InputError, setting, within


def test_a_message_names_settings_as_fields():
    error = InputError(f"{setting('height')} 33: must be even; or give {setting('image')}")
    assert (str(error), error.field) == ("height 33: must be even; or give image", "height")
    assert f"{error}" == str(error)
    assert error.worded(lambda name: f"--{name}") == "--height 33: must be even; or give --image"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.field) == (str(error), "height")


@pytest.mark.parametrize("message", ["", "a file", f"no GPU; give {setting('device')} 0"])
def test_what_begins_with_no_setting_is_about_none(message):
    assert EngineError(message).field is None


def test_errors_within_a_group_are_about_its_settings():
    with pytest.raises(BundleError) as found, within("second_pass"):
        raise BundleError(f"{setting('steps')} 3: or {setting('timesteps')}")
    assert str(found.value) == "second_pass.steps 3: or second_pass.timesteps"
    assert found.value.field == "second_pass.steps"
    with pytest.raises(InputError, match=r"^steps 3$"), within(""):
        raise InputError(f"{setting('steps')} 3")


def test_what_a_user_writes_names_no_setting():
    assert InputError("steps {height} %s 3").worded(str.upper) == "steps {height} %s 3"
