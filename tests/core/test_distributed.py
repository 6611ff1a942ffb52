import json
import os
import socket
import subprocess
import sys

import torch.distributed as dist

from visionkit.core.distributed import gather_objects

PROCESS = """
import datetime, json, sys
import torch, torch.distributed as dist
from visionkit.core.distributed import gather_objects
torch.set_num_threads(1)
rank, port = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2,
                        timeout=datetime.timedelta(seconds=60))
mine = {"rank": rank, "values": list(range(5000 * rank))}
gathered = gather_objects(mine)
again = gather_objects(["nothing"] if rank else None)
print(json.dumps([[g["rank"] for g in gathered], [len(g["values"]) for g in gathered], again]))
dist.destroy_process_group()
"""


def test_one_process_has_its_own_value_alone():
    assert not dist.is_initialized()
    value = {"a": object()}
    gathered = gather_objects(value)
    assert len(gathered) == 1
    assert gathered[0] is value


def test_two_processes_bring_different_amounts():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else None
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), port], env=environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(2)
    ]  # fmt: skip
    try:
        answers = [p.communicate(timeout=120) for p in processes]
    finally:
        for p in processes:
            p.kill()
    for process, (out, err) in zip(processes, answers, strict=True):
        assert process.returncode == 0, err[-2000:]
        assert json.loads(out.splitlines()[-1]) == [[0, 1], [0, 5000], [None, ["nothing"]]]
