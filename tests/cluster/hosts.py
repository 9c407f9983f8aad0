"""Hosts on one machine: Linux namespaces with separate network, processes, host name and files.

    cluster subnet 10.77.1.0/24 --- switch (routes) --- outside subnet 10.77.2.0/24

The first process of each host is an SSH server; killing it kills the whole host at once, like a
power cut. All names contain the id of the test process. A test run removes its hosts at the end and
those that a killed run has left at the start.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

ROOT = Path(__file__).parents[2]
SUBNETS = {"cluster": "10.77.1", "outside": "10.77.2"}
PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "nft", "ssh", "sshd", "ssh-keygen", "rsync")
PROGRAM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PACKAGES = "iproute2 util-linux nftables openssh-client openssh-server rsync"
# All mounts are in the process's namespaces and end with it. /tmp is last because it hides {state}.
INIT = """set -e
hostname {name}
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/home /mnt/state
mount --bind {state} /mnt/state
mount --bind {state}/home /mnt/home
mount --bind {state}/hosts /etc/hosts
mount --bind {state}/passwd /etc/passwd
{storage}
{firewall}
mkdir -p /run/sshd
mount -t tmpfs tmpfs {state}/tmp
{tmp_mounts}
mount --rbind {state}/tmp /tmp
cd /
exec {sshd} -D -e -f /mnt/state/sshd_config
"""
PASSWD = """root:x:0:0:root:/mnt/home:/bin/bash
sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin
"""
SSHD_CONFIG = """HostKey /mnt/state/host_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
MaxStartups 100
PidFile none
"""
HOME = "/mnt/home"
PAUSE = threading.Event()


def missing_requirement() -> str | None:
    """Return what this machine lacks to create hosts, None if nothing."""
    if sys.platform != "linux":
        return f"namespaces need Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "root is needed for network namespaces: sudo make test-cluster"
    missing = [name for name in PROGRAMS if program(name) is None]
    if missing:
        return f"{', '.join(missing)} missing: apt-get install {PACKAGES}"
    probe = f"plw{os.getpid()}-probe"
    made = subprocess.run(
        ["ip", "netns", "add", probe], capture_output=True, text=True, check=False
    )
    if made.returncode:
        return f"this machine allows no network namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=False, capture_output=True)
    return None


def host_failure() -> str | None:
    """Return why a first host does not start, as in a container without the rights, else None."""
    with TemporaryDirectory() as folder:
        try:
            with site_in(Path(folder) / "site") as site:
                site.add("probe")
        except (AssertionError, OSError) as error:
            return f"no host starts on this machine: {' '.join(str(error).split())}"
    return None


def program(name: str) -> str | None:
    """Return the path of a program, None if it is missing."""
    return shutil.which(name, path=PROGRAM_PATH)


@dataclass
class Host:
    """One machine; `storage` is the folder mounted at /mnt/sweeps, None for no mount."""

    name: str
    subnet: str
    number: int
    state: Path
    storage: Path | None
    has_firewall: bool
    has_checkout: bool
    netns: str
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{SUBNETS[self.subnet]}.{self.number}"

    @property
    def home(self) -> Path:
        """Return the path of its home folder on this machine."""
        return self.state / "home"

    def start(self) -> None:
        """Start the host and wait until SSH answers."""
        sshd = program("sshd")
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "tmp").mkdir(exist_ok=True)
        self.home.mkdir(exist_ok=True)
        # As Debian's installer writes it: gloo resolves the host's name to loopback.
        (self.state / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        (self.state / "passwd").write_text(PASSWD)
        (self.state / "sshd_config").write_text(SSHD_CONFIG)
        if not (self.state / "host_key").exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.state / "host_key"))
        storage = f"mkdir -p /mnt/sweeps\nmount --bind {self.storage} /mnt/sweeps"
        rules = ROOT / "examples" / "clusters" / "firewall.nft"
        script = INIT.format(
            name=self.name,
            state=self.state,
            tmp_mounts="\n".join(self._tmp_mounts()),
            storage=storage if self.storage else "",
            firewall=f"{program('nft')} -f {rules}" if self.has_firewall else "",
            sshd=sshd,
        )
        log = (self.state / "sshd.log").open("ab")
        self.process = subprocess.Popen(
            [
                # Hosts end with this process, even if it is killed.
                *("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.netns),
                *("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child"),
                *("--mount-proc", "/bin/sh", "-c", script),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=host_environment(),
            start_new_session=True,
        )
        log.close()
        wait_until(self._has_sshd, f"{self.name} to start (see {self.state / 'sshd.log'})", 60)

    def kill(self) -> None:
        """Kill all of its processes at once, like a power cut."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def command(self, *command: str) -> list[str]:
        """Return the local command that runs `command` on the host."""
        assert self.process is not None
        [init] = psutil.Process(self.process.pid).children()
        environment = [f"{key}={value}" for key, value in self.environment.items()]
        return [
            *("nsenter", "--target", str(init.pid), "--mount", "--pid", "--uts", "--net"),
            *("--wdns=/mnt/home", "env", *environment, *command),
        ]

    def run(self, *command: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `command` on the host and wait for its end."""
        return subprocess.run(
            self.command(*command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=host_environment(),
        )

    def start_command(self, *command: str) -> subprocess.Popen[str]:
        """Start `command` on the host without waiting."""
        return subprocess.Popen(
            self.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=host_environment(),
            start_new_session=True,
        )

    def _tmp_mounts(self) -> list[str]:
        """Return commands that mount the folders it needs from this machine's /tmp."""
        needed = {Path(sys.prefix), Path(sys.base_prefix)} | (
            {ROOT} if self.has_checkout else set()
        )
        commands = []
        for path in sorted(one for one in needed if one.is_relative_to("/tmp")):
            inside = self.state / "tmp" / path.relative_to("/tmp")
            commands += [f"mkdir -p {inside}", f"mount --rbind {path} {inside}"]
        return commands

    def _has_sshd(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.state / "sshd.log").read_text()
        listening = subprocess.run(
            ["ip", "netns", "exec", self.netns, "ss", "-Hltn", "sport", "=", ":22"],
            capture_output=True,
            check=False,
        )
        return bool(listening.stdout)


class Site:
    """A switch, its hosts, one SSH key for all of them, and a folder that some share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "storage"
        self.storage.mkdir(parents=True)
        self.key = folder / "key"
        self._tag = f"plw{os.getpid()}"
        self._switch = f"{self._tag}-switch"
        self.hosts: dict[str, Host] = {}
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "plw-test", "-f", str(self.key))
        _run("ip", "netns", "add", self._switch)
        self._in_switch("ip", "link", "set", "lo", "up")
        for subnet, prefix in SUBNETS.items():
            self._in_switch("ip", "link", "add", subnet, "type", "bridge")
            self._in_switch("ip", "address", "add", f"{prefix}.254/24", "dev", subnet)
            self._in_switch("ip", "link", "set", subnet, "up")
        self._in_switch("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def add(
        self,
        name: str,
        *,
        subnet: str = "cluster",
        has_storage: bool = True,
        has_firewall: bool = True,
        has_checkout: bool = False,
    ) -> Host:
        """Create, connect and start a host."""
        number = len(self.hosts) + 1
        netns = f"{self._tag}-{name}"
        _run("ip", "netns", "add", netns)
        port = f"port{number}"
        self._in_switch(
            *("ip", "link", "add", port, "type", "veth"), *("peer", "name", "eth0", "netns", netns)
        )
        self._in_switch("ip", "link", "set", port, "master", subnet, "up")
        prefix = SUBNETS[subnet]
        for command in (
            "ip link set lo up",
            f"ip address add {prefix}.{number}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {prefix}.254",
        ):
            _run("ip", "netns", "exec", netns, *command.split())
        host = Host(
            name=name,
            subnet=subnet,
            number=number,
            state=self.folder / "hosts" / name,
            storage=self.storage if has_storage else None,
            has_firewall=has_firewall,
            has_checkout=has_checkout,
            netns=netns,
        )
        keys = host.home / ".ssh"
        keys.mkdir(parents=True, mode=0o700)
        # In place of what the cluster's set-up commands would install.
        (host.home / "plw").symlink_to(sys.prefix)
        shutil.copy(self.key.with_suffix(".pub"), keys / "authorized_keys")
        self.hosts[name] = host
        host.start()
        return host

    def unplug(self, host: Host) -> None:
        """Disconnect it from the network."""
        self._in_switch("ip", "link", "set", f"port{host.number}", "down")

    def plug(self, host: Host) -> None:
        """Reconnect it to the network."""
        self._in_switch("ip", "link", "set", f"port{host.number}", "up")

    def close(self) -> None:
        """Kill all hosts and delete the networks."""
        for host in self.hosts.values():
            host.kill()
            _run("ip", "netns", "delete", host.netns)
        _run("ip", "netns", "delete", self._switch)

    def _in_switch(self, *command: str) -> None:
        _run("ip", "netns", "exec", self._switch, *command)


@contextmanager
def site_in(folder: Path) -> Iterator[Site]:
    """Create a site, and remove it at the end."""
    remove_leftovers()
    site = Site(folder)
    try:
        yield site
    finally:
        site.close()


def remove_leftovers() -> None:
    """Delete the networks of test runs that were killed; their processes ended with them."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    for line in listed.stdout.splitlines():
        name = line.split()[0]
        owner = name.removeprefix("plw").partition("-")[0]
        if name.startswith("plw") and owner.isdigit() and not psutil.pid_exists(int(owner)):
            _run("ip", "netns", "delete", name)


def host_environment() -> dict[str, str]:
    """Return the environment of a login, without that of the tests."""
    return {
        "HOME": HOME,
        "USER": "root",
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    }


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Return as soon as `condition` holds.

    Raises:
        AssertionError: it does not hold within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        PAUSE.wait(0.2)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
