"""The checks of ../../README.md with the official Python client, which is the C++ client.

Without arguments it lists its checks; otherwise it runs those that are named, and prints a line with the result of each.
"""

import os
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

# Each registers its checks.
import messages  # noqa: F401
import others  # noqa: F401
import positions  # noqa: F401
import producers  # noqa: F401
import subscriptions  # noqa: F401
from session import CHECKS, Session


def run(name):
    session = Session()
    try:
        outcome = CHECKS[name](session)
        return f"ok ({outcome})" if outcome else "ok"
    except Exception as error:  # every failure is a result
        if os.environ.get("CONFORMANCE_TRACE"):
            traceback.print_exc()
        return f"FAILED: {type(error).__name__}: {str(error)[:160]}"
    finally:
        session.client.shutdown()


def main():
    names = sys.argv[1:]
    if not names:
        print("\n".join(CHECKS))
        return
    with ThreadPoolExecutor(8) as pool:
        for name, result in zip(names, pool.map(run, names)):
            print(f"{name}\t{result}".replace("\n", " "), flush=True)
    os._exit(0)


main()
