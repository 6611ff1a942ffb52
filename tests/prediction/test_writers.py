import pytest

from visionkit.prediction.writers import files_beside


@pytest.mark.parametrize(
    ("pictures", "files"),
    [
        ([], []),
        (["a.png"], ["a.txt"]),
        (["/x/a.png", "/x/b.jpg"], ["a.txt", "b.txt"]),
        (["/x/train/1.jpg", "/x/val/1.jpg"], ["train/1.txt", "val/1.txt"]),
        (["/x/1.jpg", "/x/1.png", "/x/2.png"], ["1.jpg.txt", "1.png.txt", "2.png.txt"]),
        (["/x/a.jpg", "/x/A.png"], ["a.jpg.txt", "A.png.txt"]),
        (["/x/classes.jpg", "/x/b.jpg"], ["classes.jpg.txt", "b.jpg.txt"]),
        (["/x/Classes.jpg", "/x/b.jpg"], ["Classes.jpg.txt", "b.jpg.txt"]),
        (["/x/y/classes.jpg", "/x/b.jpg"], ["y/classes.txt", "b.txt"]),
        (["/x/a.jpg", "/x/../x/a.jpg"], ["a.txt", "a.txt"]),
    ],
)
def test_no_two_pictures_share_a_file(pictures, files):
    found = files_beside(pictures, ".txt", reserved=["classes"])
    assert list(found) == pictures
    assert [p.as_posix() for p in found.values()] == files


def test_suffix_and_reserved_names_are_the_callers():
    assert [p.as_posix() for p in files_beside(["/x/classes.jpg"], ".png").values()] == ["classes.png"]
    taken = files_beside(["/x/a.jpg", "/x/b.jpg"], ".png", reserved=["b", "c"])
    assert [p.as_posix() for p in taken.values()] == ["a.jpg.png", "b.jpg.png"]
