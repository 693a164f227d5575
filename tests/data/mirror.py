"""A local web server whose files can be good, damaged, late or never there."""

import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mirror:
    """``mirror.answers["/name"]`` is bytes, or a function of the request handler."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        self.closing = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                mirror.asked.append(self.path)
                answer = mirror.answers.get(self.path, status(404))
                (whole(answer) if isinstance(answer, bytes) else answer)(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # a client that hangs up is what we test
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def stall(self, data):
        """Send the first half, then nothing until the test is over."""

        def answer(handler):
            head(handler, len(data))
            handler.wfile.write(data[: len(data) // 2])
            handler.wfile.flush()
            self.closing.wait(10)

        return answer


def head(handler, length=None):
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


def whole(data, announce=True):
    def answer(handler):
        head(handler, len(data) if announce else None)
        handler.wfile.write(data)

    return answer


def cut(data, keep):
    """Announce all of ``data``, send ``keep`` bytes and hang up."""

    def answer(handler):
        head(handler, len(data))
        handler.wfile.write(data[:keep])

    return answer


def reset(handler):
    """Answer with a TCP reset."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def status(code):
    return lambda handler: handler.send_error(code)


def first_then(*answers):
    """Each answer once, the last one for ever."""
    left = list(answers)

    def answer(handler):
        now = left.pop(0) if len(left) > 1 else left[0]
        (whole(now) if isinstance(now, bytes) else now)(handler)

    return answer
