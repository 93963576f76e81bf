"""Plays tests/compat/server_cases.json to the Python server, and prints what it answered.

python tests/compat/python_server_cases.py           prints it as tests/compat/python_server.json has it
python tests/compat/python_server_cases.py --check   fails where that is another
--source DIR   the server's source, otherwise cloned into target/compat/server

LARDER_REDIS_SERVER names the Redis binary, otherwise redis-server on PATH. All servers are on free ports of 127.0.0.1.
Recorded with the versions of the server's requirements.txt, Flask 1.1.2 and redis-py 3.5.3 among them, on Linux, whose
errors are in the answers.

A case starts with an empty manager and all nodes up. Its requests go one after another; {"stop": 1} kills node 1 until
the end of the case, and its answer is null. Placeholders, in cases and in answers, stand for ports:

{node:0} to {node:2}   a Redis
{locked}               a Redis with the password "open sesame"
{gone}                 nobody listens there
{prefix:0}             {node:0} without its last digit
{beyond:0}             {node:0} and 65536 more

In "json" a text that is nothing but a placeholder becomes a number; in "text", the raw body, nothing does. The nodes in
"alike" are one in the answers, for which of them is meant differs from run to run.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
import urllib.parse
import zlib

HERE = pathlib.Path(__file__).resolve().parent
CLONE = HERE.parent.parent / "target/compat/server"
SERVER = "https://github.com/Rgcsh/distributed_redis_server"
COMMIT = "4e305397491cd117caf9fb83a782801766445df4"
PASSWORD = "open sesame"
REPLICAS = 5
DB = 13


def serve(source):
    """The child: the Python server as its manage.py runs it, but without its job and its mail. Prints its port."""
    sys.path.insert(0, source)

    # No name leaves the machine.
    lookup = socket.getaddrinfo

    def local(host, *args, **kwargs):
        if isinstance(host, str) and host not in ("", "127.0.0.1"):
            if host != "localhost":
                host.encode("idna")
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            host = "127.0.0.1"
        return lookup(host, *args, **kwargs)

    socket.getaddrinfo = local
    socket.getfqdn = lambda name="": name

    class Smtp:
        def __init__(self, *args, **kwargs):
            pass

        def send(self, to, subject, contents):
            with open("mails", "a") as mails:
                mails.write(json.dumps(contents[1]) + "\n")

    sys.modules["yagmail"] = types.SimpleNamespace(SMTP=Smtp)

    import flask_apscheduler
    flask_apscheduler.APScheduler.start = lambda *args, **kwargs: None

    from app import create_app
    from werkzeug.serving import make_server
    server = make_server("127.0.0.1", 0, create_app(), threaded=True)
    print(server.port, flush=True)
    server.serve_forever()


class Redis:
    """A redis-server of our own, and the few commands that are asked of it here."""

    def __init__(self, binary, directory, taken, password=None):
        self.binary, self.directory, self.password = binary, directory, password
        # Below the ports that systems give to outgoing connections, so that a killed one's stays free.
        for self.port in random.sample(sorted(set(range(10000, 30000)) - taken), 20):
            taken.add(self.port)
            try:
                return self.start()
            except RuntimeError as error:
                failed = error
        raise failed

    def start(self):
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {self.directory}", 'save ""', "appendonly no"]
        if self.password:
            lines.append(f'requirepass "{self.password}"')
        config = self.directory / f"{self.port}.conf"
        config.write_text("\n".join(lines) + "\n")
        log = self.directory / f"{self.port}.log"
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [self.binary, str(config)], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and self.process.poll() is None:
                if self.is_up():
                    return
                time.sleep(0.05)
            raise RuntimeError(f"no Redis on port {self.port}: {log.read_text()}")
        except BaseException:
            self.kill()
            raise

    def is_up(self):
        import redis
        try:
            return f"process_id:{self.process.pid}\r\n" in self.ask("INFO", "server").decode()
        except redis.RedisError:
            return False

    def ask(self, *command, db=0):
        import redis
        connection = redis.Connection("127.0.0.1", self.port, db, self.password, socket_timeout=10)
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def kill(self):
        self.process.kill()
        self.process.wait()


class Trial:
    """All servers of a run."""

    def __init__(self, source, binary, directory):
        self.directory, self.servers, taken = directory, [], set()
        try:
            self.manager = self.redis(binary, taken)
            self.nodes = [self.redis(binary, taken) for _ in range(3)]
            self.locked = self.redis(binary, taken, PASSWORD)
            # Bound and not listened on: nobody else gets it.
            self.gone = socket.socket()
            self.gone.bind(("127.0.0.1", 0))
            self.start_python(source)
        except BaseException:
            self.close()
            raise
        first = str(self.nodes[0].port)
        self.ports = {f"node:{i}": str(node.port) for i, node in enumerate(self.nodes)}
        self.ports |= {"locked": str(self.locked.port), "gone": str(self.gone.getsockname()[1])}
        self.ports |= {"prefix:0": first[:-1], "beyond:0": str(int(first) + 65536)}

    def redis(self, binary, taken, password=None):
        server = Redis(binary, self.directory, taken, password)
        self.servers.append(server)
        return server

    def start_python(self, source):
        manager = {"host": "127.0.0.1", "port": self.manager.port, "pass": None, "db": DB}
        log = {"logging_info_file": "info.log", "logging_error_file": "error.log"}
        mail = {"SMTP_ACCOUNT": "a", "SMTP_PASSWORD": "b", "SMTP_HOST": "127.0.0.1", "SMTP_PORT": 1, "SEND_EMAIL": "c"}
        # YAML takes JSON.
        config = self.directory / "config.yml"
        config.write_text(json.dumps({"core": {"VNODE_REPLICAS": REPLICAS, **mail}, "log": log, "redis": manager}))
        env = {**os.environ, "FLASK_CONFIG": str(config), "PYTHONDONTWRITEBYTECODE": "1"}
        self.log = self.directory / "python.log"
        with self.log.open("w") as err:
            self.python = subprocess.Popen(
                [sys.executable, str(pathlib.Path(__file__).resolve()), "--serve", "--source", str(source)],
                cwd=self.directory, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True)
        port = self.python.stdout.readline()
        if not port:
            raise RuntimeError("the Python server does not start: " + self.log.read_text())
        self.port = int(port)

    def close(self):
        for server in self.servers:
            server.kill()
        if hasattr(self, "python"):
            self.python.kill()
            self.python.wait()
        if hasattr(self, "gone"):
            self.gone.close()

    def fill(self, text):
        return re.sub(r"\{(\w+(:\d)?)\}", lambda found: self.ports[found[1]], text)

    def placeholders(self, value, alike):
        """The value with ports as placeholders."""
        if isinstance(value, str):
            names = {port: name for name, port in self.ports.items()}
            names |= {str(self.nodes[i].port): "node:" + "|".join(map(str, alike)) for i in alike}
            return re.sub(rf"(?<!\d)({'|'.join(names)})(?!\d)", lambda found: "{" + names[found[0]] + "}", value)
        if isinstance(value, list):
            return [self.placeholders(item, alike) for item in value]
        if isinstance(value, dict):
            return {self.placeholders(key, alike): self.placeholders(item, alike) for key, item in value.items()}
        return value

    def request(self, step):
        path, body, headers = step["path"], None, {}
        query = {name: self.fill(value) for name, value in step.get("query", {}).items()}
        if query:
            path += "?" + urllib.parse.urlencode(query)
        if "form" in step:
            body = urllib.parse.urlencode({name: self.fill(value) for name, value in step["form"].items()})
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif "json" in step:
            body = self.fill(re.sub(r'"(\{\w+(:\d)?\})"', r"\1", json.dumps(step["json"])))
            headers["Content-Type"] = "application/json"
        elif "text" in step:
            body = self.fill(step["text"])
            headers["Content-Type"] = step["type"]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(step["method"], path, body, headers)
            response = connection.getresponse()
            text, kind = response.read().decode(), response.getheader("Content-Type")
        finally:
            connection.close()
        if kind.startswith("application/json"):
            text = told(json.loads(text))
        return {"status": response.status, "type": kind, "body": text}

    def step(self, step):
        if "stop" in step:
            return self.nodes[step["stop"]].kill()
        return self.request(step)

    def map(self):
        """The manager's map: how many positions each node has, all of them where they must be."""
        flat = self.manager.ask("HGETALL", "HASH_RING_MAP", db=DB)
        positions = dict(zip([key.decode() for key in flat[::2]], [url.decode() for url in flat[1::2]]))
        urls = sorted(set(positions.values()))
        must = {str(zlib.crc32(f"{url}_vnode{i}".encode())): url for url in urls for i in range(REPLICAS)}
        if positions != must:
            raise RuntimeError(f"positions elsewhere: {positions}")
        return {url: list(positions.values()).count(url) for url in urls}

    def mails(self):
        path = self.directory / "mails"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        path.unlink()
        return [json.loads(line) for line in lines]

    def run(self, case):
        self.manager.ask("FLUSHALL")
        row = {"answers": [self.step(step) for step in case["requests"]], "map": self.map()}
        mails = self.mails()
        if mails:
            row["mails"] = mails
        for node in self.nodes:
            if node.process.poll() is not None:
                node.start()
        row = self.placeholders(row, case.get("alike", []))
        for answer in row["answers"]:
            if answer and isinstance(answer["body"], dict) and isinstance(answer["body"].get("result"), list):
                answer["body"]["result"].sort(key=lambda node: node["node_url"])
        row["map"] = dict(sorted(row["map"].items()))
        return {"case": case["case"], **row}


def told(body):
    """An answer without what differs from run to run."""
    if "timestamp" in body:
        body["timestamp"] = "T"
    if isinstance(body.get("result"), list):
        for node in body["result"]:
            node["info"] = len(node.pop("node_info")) > 50
    return body


def cloned():
    if not CLONE.exists():
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", SERVER, str(CLONE)], check=True)
    subprocess.run(["git", "-C", str(CLONE), "checkout", "--quiet", COMMIT], check=True)
    return CLONE


def played(source, cases):
    binary = os.environ.get("LARDER_REDIS_SERVER") or shutil.which("redis-server")
    if not binary:
        sys.exit("no redis-server on PATH, and LARDER_REDIS_SERVER names none")
    with tempfile.TemporaryDirectory(prefix="larder-compat.") as directory:
        trial = Trial(source, binary, pathlib.Path(directory))
        try:
            return [trial.run(case) for case in cases]
        finally:
            trial.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=pathlib.Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(str(options.source))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    source = options.source.resolve() if options.source else cloned()
    cases = json.loads((HERE / "server_cases.json").read_text(encoding="utf-8"))
    rows = [json.dumps(row, ensure_ascii=False) for row in played(source, cases)]
    text = "[\n  " + ",\n  ".join(rows) + "\n]\n"
    if not options.check:
        sys.stdout.buffer.write(text.encode())
        return
    recorded = (HERE / "python_server.json").read_text(encoding="utf-8")
    if text != recorded:
        lines = [line.strip().rstrip(",") for line in recorded.splitlines()]
        others = "\n".join(row for row in rows if row not in lines)
        sys.exit("The Python server answers otherwise than tests/compat/python_server.json has it:\n" + others)


main()
