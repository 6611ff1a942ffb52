"""Weights from the hub: once, checked, gone on with after a cut; and what is said where it cannot be reached."""

import hashlib
import socket
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants, try_to_load_from_cache
from safetensors.torch import save

from tests import hub as stand_in
from visionkit.core.errors import DataError
from visionkit.models.backbones.resnet import ResNet
from visionkit.models.weights import hub as weights_hub
from visionkit.models.weights.file import find_weights, read_weights

NAME = "timm/resnet18.a1_in1k"


@pytest.fixture(scope="module")
def content():
    """A file of weights for a ResNet-18, without its last stages to keep it small."""
    state = {k: v.half() for k, v in ResNet(18).state_dict().items() if not k.startswith(("layer3", "layer4"))}
    return save(state)


@pytest.fixture
def hub(content, tmp_path, monkeypatch):
    with stand_in.serving() as hub:
        stand_in.use(monkeypatch, hub.url, tmp_path / "cache")
        hub.files = {NAME: content, "me/mine": content}
        yield hub


class TestFetching:
    def test_once_into_the_cache_that_timm_reads(self, hub, content, tmp_path, capsys):
        path = find_weights(NAME)
        assert path.read_bytes() == content
        assert try_to_load_from_cache(NAME, "model.safetensors") == str(path)
        asked = len(hub.asked)
        assert find_weights(NAME) == path
        assert find_weights("resnet18.a1_in1k") == path
        assert len(hub.asked) == asked
        assert hub.downloads() == [None]
        before, after = capsys.readouterr().err.splitlines()
        size = f"{len(content) / 1e6:.1f} MB"
        assert before == (
            f"weights  resnet18.a1_in1k: {size} from {hub.url}, licence Apache-2.0; kept in {tmp_path / 'cache'}"
        )
        assert hashlib.sha256(content).hexdigest()[:12] in after

    def test_the_cache_is_read_by_the_client_of_the_hub(self, hub, content):
        from huggingface_hub import hf_hub_download

        find_weights("hf-hub:me/mine")
        found = hf_hub_download("me/mine", "model.safetensors", local_files_only=True)
        assert Path(found).read_bytes() == content

    def test_without_network_once_it_is_there(self, hub, monkeypatch):
        path = find_weights(NAME)
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        assert find_weights(NAME) == path
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert find_weights(NAME) == path

    def test_the_passport_has_name_hash_and_statistics(self, hub, content):
        report = ResNet(18, weights="auto", partial=True).weights_report
        assert (report.source, report.sha256) == (NAME, hashlib.sha256(content).hexdigest())
        assert report.plain()["source"] == NAME
        assert "timm's configuration of resnet18.a1_in1k" in str(report)

    def test_a_cut_is_gone_on_with_in_the_same_run(self, hub, content):
        hub.cuts = [100_000, 250_000]
        assert find_weights(NAME).read_bytes() == content
        assert hub.downloads() == [None, "bytes=100000-", "bytes=350000-"]

    def test_a_cut_is_gone_on_with_in_the_next_run(self, hub, content, tmp_path):
        hub.cuts = [100_000, 0]
        with pytest.raises(DataError, match=r"cut at 0\.1 of .* MB .*goes on from there"):
            find_weights(NAME)
        assert not list(tmp_path.rglob("model.safetensors"))
        assert find_weights(NAME).read_bytes() == content
        assert hub.downloads() == [None, "bytes=100000-", "bytes=100000-"]
        assert not list(tmp_path.rglob("*.incomplete"))

    def test_a_server_that_sends_no_parts_sends_the_whole(self, hub, content):
        hub.cuts, hub.ranges = [100_000], False
        assert find_weights(NAME).read_bytes() == content

    def test_a_wrong_hash_is_refused_and_nothing_is_kept(self, hub, tmp_path):
        hub.sha256 = "ab" * 32
        with pytest.raises(DataError, match=r"is not the hub's file \(SHA-256 .* not abababababab"):
            find_weights(NAME)
        assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]

    def test_a_part_of_another_file_does_not_pass(self, hub, content, tmp_path):
        part = (
            tmp_path
            / "cache/models--timm--resnet18.a1_in1k/blobs"
            / f"{hashlib.sha256(content).hexdigest()}.incomplete"
        )
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x" * 1000)
        with pytest.raises(DataError, match="is not the hub's file"):
            find_weights(NAME)
        assert find_weights(NAME).read_bytes() == content

    def test_a_changed_file_in_the_cache_is_refused_by_name(self, hub):
        path = find_weights(NAME)
        path.resolve().write_bytes(path.read_bytes()[:-1] + b"!")
        with pytest.raises(DataError, match="damaged, its SHA-256 is not the hub's: delete .*blobs"):
            read_weights(NAME)

    def test_the_token_goes_to_the_hub_and_no_further(self, hub, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "secret")
        find_weights("hf-hub:me/mine")
        tokens = {path.split("/")[1]: token for _, path, _, token in hub.asked}
        assert tokens == {"me": "Bearer secret", "blob": None}

    def test_two_at_once_fetch_once(self, hub, capsys):
        hub.open.clear()
        found, said = [], ""
        threads = [threading.Thread(target=lambda: found.append(find_weights(NAME))) for _ in range(2)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 20
        while "another process is fetching them" not in said and time.monotonic() < end:
            time.sleep(0.02)
            said += capsys.readouterr().err
        hub.open.set()
        for thread in threads:
            thread.join()
        assert len(found) == 2
        assert found[0] == found[1]
        assert len(hub.downloads()) == 1
        assert "another process is fetching them" in said

    @pytest.mark.parametrize(
        ("name", "licence"),
        [("timm/resnet18.fb_ssl_yfcc100m_ft_in1k", "cc-by-nc-4.0"), ("me/mine", "see http://127.0.0.1:")],
    )
    def test_the_licence_of_others(self, hub, content, capsys, name, licence):
        hub.files[name] = content
        find_weights(name if name.startswith("timm") else f"hf-hub:{name}")
        assert f"licence {licence}" in capsys.readouterr().err

    def test_a_full_disk_is_one_line(self, hub, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(weights_hub, "_go_on", full)
        with pytest.raises(DataError, match=r"no space left on the disk \(.* MB needed\)"):
            find_weights(NAME)

    def test_a_cache_that_cannot_be_written_is_one_line(self, hub, tmp_path):
        (tmp_path / "cache").write_text("a file")
        with pytest.raises(DataError, match="a file has the name of this folder") as e:
            find_weights(NAME)
        assert len(e.value.lines) == 1


class TestNotReachable:
    def refused(self, name=NAME):
        start = time.monotonic()
        with pytest.raises(DataError) as e:
            find_weights(name)
        assert time.monotonic() - start < 5
        assert len(e.value.lines) == 1
        return e.value.lines[0]

    def test_a_closed_port(self, tmp_path, monkeypatch):
        stand_in.use(monkeypatch, "http://127.0.0.1:9", tmp_path)
        assert self.refused() == (
            "weights resnet18.a1_in1k (47 MB, Apache-2.0): not on this machine, and http://127.0.0.1:9 cannot be "
            "reached (Connection refused): run `visionkit backbone get resnet18.a1_in1k --out .` on another machine, "
            "put its resnet18.a1_in1k.safetensors into a folder here and set VISIONKIT_WEIGHTS=FOLDER; or train from "
            "random weights, with weights: null (of a few hundred photos, 0.72 right instead of 0.95)"
        )
        assert "backbone get hf-hub:me/mine --out .` on another machine, put its me--mine.safe" in self.refused(
            "hf-hub:me/mine"
        )
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("drip", [False, True])
    def test_a_port_that_never_answers(self, tmp_path, monkeypatch, drip):
        monkeypatch.setattr(weights_hub, "PATIENCE", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as server:
            stand_in.use(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path)
            if drip:  # a byte now and then keeps a socket's own time limit from ending it
                threading.Thread(target=self.feed, args=(server,), daemon=True).start()
            assert "cannot be reached (no answer)" in self.refused()

    @staticmethod
    def feed(server):
        connection, _ = server.accept()
        try:
            for letter in b"HTTP/1.1 200 OK":
                connection.sendall(bytes([letter]))
                time.sleep(0.2)
        except OSError:
            pass

    def test_a_host_without_address(self, tmp_path, monkeypatch):
        stand_in.use(monkeypatch, "http://no-such-host.invalid", tmp_path)
        assert "http://no-such-host.invalid cannot be reached (" in self.refused()

    def test_what_it_may_wait_for_is_within_five_seconds(self):
        assert weights_hub.PATIENCE < 5

    def test_offline_mode_asks_nobody(self, hub, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert "and HF_HUB_OFFLINE is set: run" in self.refused()
        assert hub.asked == []

    def test_no_such_name(self, hub):
        assert "has no model.safetensors under this name (404): `visionkit backbone list`" in self.refused(
            "timm/no.such"
        )

    @pytest.mark.parametrize("name", ["hf-hub:a/b/c", "hf-hub:../x", "hf-hub:a", "hf-hub:a/b?c"])
    def test_a_bad_name_asks_nobody(self, hub, name):
        assert "no name of the hub" in self.refused(name)
        assert hub.asked == []

    def test_another_server(self, hub):
        hub.sha256 = "no-hash"
        assert "answers, but not as the hub does" in self.refused()
