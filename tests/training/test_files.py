"""Files that are whole or not there."""

from training.files import write


def test_a_file_is_written_with_its_folders_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    for text in ("one", "two"):
        write(path, text)
        assert path.read_text() == text
        assert [file.name for file in path.parent.iterdir()] == ["c.json"]
