"""Runs tests/compat/cases.json through Flask-Caching, and prints what each step came to.

python tests/compat/flask_caching_cases.py           prints it as tests/compat/flask_caching.json has it
python tests/compat/flask_caching_cases.py --check   fails where that is another
"""

import json
import pathlib
import sys

from flask import Flask, request
from flask_caching import Cache

HERE = pathlib.Path(__file__).parent


class Trial:
    """One case: a cache of its own, and functions that count how often they ran."""

    def __init__(self):
        self.counts, self.flag = {}, False
        self.app = Flask("compat")
        self.cache = Cache(self.app, config={"CACHE_TYPE": "SimpleCache", "CACHE_KEY_PREFIX": ""})
        self.functions, self.instances = self.memoized(), {}
        self.views()
        self.client = self.app.test_client()

    def ran(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name]

    def memoized(self):
        cache, ran = self.cache, self.ran

        @cache.memoize()
        def add(a, b):
            ran("add")
            return a + b

        @cache.memoize()
        def echo(a):
            ran("echo")
            return a

        @cache.memoize(unless=lambda f, a: a == 1)
        def unless(a):
            return ran("unless")

        @cache.memoize(forced_update=lambda: self.flag)
        def forced(a):
            return ran("forced")

        @cache.memoize(response_filter=lambda value: value < 5)
        def filtered(a):
            ran("filtered")
            return a

        @cache.memoize()
        def nothing(a):
            ran("nothing")

        @cache.memoize(cache_none=True)
        def nothing_kept(a):
            ran("nothing_kept")

        @cache.memoize(args_to_ignore=["b"])
        def ignoring(a, b):
            return ran("ignoring")

        @cache.memoize(make_name=lambda name: "another")
        def named(a):
            return ran("named")

        @cache.memoize(source_check=True)
        def checked(a):
            return ran("checked")

        class Shop:
            def __init__(self, name):
                self.name = name

            def __repr__(self):
                return f"Shop({self.name})"

            @cache.memoize()
            def price(self, a):
                ran("method")
                return f"{self.name} {a}"

        self.shop = Shop
        return {f.__name__: f for f in (add, echo, unless, forced, filtered, nothing, nothing_kept, ignoring, named, checked)}

    def views(self):
        cache, route = self.cache, self.app.route
        view = lambda: f"view {self.ran('view')}"
        both = {"methods": ["GET", "POST"]}
        user = lambda: "view of " + request.args["user"]
        page = lambda *args, **kwargs: "page " + request.args["page"]
        for path, options in {
            "/plain": {},
            "/query": {"query_string": True},
            "/fixed": {"key_prefix": "MyCachedView"},
            "/called": {"key_prefix": user},
            "/keyed": {"make_cache_key": page},
            "/unless": {"unless": lambda: True},
            "/forced": {"forced_update": lambda: self.flag},
            "/filtered": {"response_filter": lambda response: False},
        }.items():
            route(path, endpoint=path, **both)(cache.cached(**options)(view))
        route("/failing", endpoint="failing")(cache.cached()(lambda: (f"view {self.ran('view')}", 500)))

    def instance(self, name):
        return self.instances.setdefault(name, self.shop(name))

    def step(self, operation, *args):
        cache = self.cache
        if operation in ("get", "has", "delete", "clear", "get_many", "get_dict"):
            answer = getattr(cache, operation)(*args)
            return bool(answer) if operation in ("has", "delete", "clear") else answer
        if operation in ("set", "add"):
            key, value, *timeout = args
            return bool(getattr(cache, operation)(key, value, *timeout))
        if operation == "set_many":
            return len(cache.set_many(*args))
        if operation == "delete_many":
            return len(cache.delete_many(*args))
        if operation in ("inc", "dec"):
            return getattr(cache.cache, operation)(*args)
        if operation == "call":
            return self.functions[args[0]](*args[1:])
        if operation == "uncached":
            return self.functions[args[0]].uncached(*args[1:])
        if operation == "delete_memoized":
            return cache.delete_memoized(self.functions[args[0]], *args[1:])
        if operation == "method":
            return self.instance(args[0]).price(*args[1:])
        if operation == "delete_instance":
            return cache.delete_memoized(self.instance(args[0]).price)
        if operation == "delete_method":
            return cache.delete_memoized(self.shop.price)
        if operation == "flag":
            self.flag = args[0]
            return None
        if operation == "runs":
            return self.counts.get(args[0], 0)
        response = getattr(self.client, operation.removesuffix("_view"))(args[0])
        return response.text if response.status_code == 200 else str(response.status_code)


def run(case):
    trial = Trial()
    with trial.app.test_request_context():
        return [trial.step(*step) for step in case["steps"]]


def main():
    cases = json.loads((HERE / "cases.json").read_text())
    rows = [json.dumps({"case": case["case"], "flask_caching": run(case)}) for case in cases]
    text = "[\n  " + ",\n  ".join(rows) + "\n]\n"
    if "--check" not in sys.argv:
        print(text, end="")
    elif text != (HERE / "flask_caching.json").read_text():
        sys.exit("Flask-Caching answers otherwise than tests/compat/flask_caching.json has it:\n" + text)


main()
