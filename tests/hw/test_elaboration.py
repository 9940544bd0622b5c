"""The garbage collector is off in the body, and afterwards as it was."""

import gc

import pytest
from nearflash_hw.elaboration import without_gc


def test_off_in_the_body_and_as_before_after_it():
    assert gc.isenabled()
    with without_gc():
        with without_gc():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="x"), without_gc():
        raise ValueError("x")
    assert gc.isenabled()
