import pytest

from visionkit.core.errors import DataError, UsageError, VisionkitError


@pytest.mark.parametrize(("kind", "status"), [(DataError, 1), (UsageError, 2), (VisionkitError, 1)])
def test_exit_status_and_message(kind, status):
    error = kind("a.jpg: empty; remove it")
    assert error.exit_status == status
    assert str(error) == "a.jpg: empty; remove it"
    assert isinstance(error, VisionkitError)


def test_data_and_usage_are_told_apart():
    assert not issubclass(DataError, UsageError)
    assert not issubclass(UsageError, DataError)
