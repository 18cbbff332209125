"""A Ray cluster on this machine, held by a process of its own, because Ray leaves files open where it is started.

Run as a program, it makes a head that works on nothing, prints the cluster's address, and obeys lines: `add` makes a
node of one processor and prints the process number of its raylet, `kill PID` kills a node by that number.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

_MEMORY = 10**8


class Nodes:
    """The cluster, from the other side. Use as a context manager.

    Attributes:
        address: of the head.
        raylets: process numbers of the nodes' raylets.
    """

    def __init__(self):
        root = Path(__file__).resolve().parents[1]
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(root)}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.raylets = []
        self.address = self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.stdout.read()
        self._process.stdout.close()
        self._process.wait(60)

    def add(self):
        self._tell("add")
        self.raylets.append(self._answer())

    def kill(self, raylet):
        self.raylets.remove(raylet)
        self._tell(f"kill {raylet}")
        self._answer()

    def busy(self):
        """Process numbers of what works on a unit, each with that of its node's raylet."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                command = (folder / "cmdline").read_bytes()
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            # An idle one is called so.
            if b"_run_on_node" in command and parent in self.raylets:
                found.append((int(folder.name), parent))
        return found

    def _tell(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _answer(self):
        # Ray says other things, too.
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise RuntimeError("the cluster did not start")


def _answer(value):
    sys.stdout.write(f"ANSWER {json.dumps(value)}\n")
    sys.stdout.flush()


def main():
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {}
    _answer(cluster.address)
    for line in sys.stdin:
        if line.startswith("add"):
            node = cluster.add_node(num_cpus=1, object_store_memory=_MEMORY)
            cluster.wait_for_nodes()
            raylet = node.all_processes["raylet"][0].process.pid
            nodes[raylet] = node
            _answer(raylet)
        else:
            cluster.remove_node(nodes.pop(int(line.split()[1])), allow_graceful=False)
            _answer(None)
    cluster.shutdown()


if __name__ == "__main__":
    main()
