"""A repository behind HTTP: git's own http-backend, called from any `BaseHTTPRequestHandler`."""

from __future__ import annotations

import os
import subprocess


def read_body(handler):
    """The request's body, sent whole or in chunks."""
    if length := int(handler.headers.get("Content-Length") or 0):
        return handler.rfile.read(length)
    body = b""
    while handler.headers.get("Transfer-Encoding") == "chunked" and (size := int(handler.rfile.readline(), 16)):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    return body


def serve_git(handler, root):
    """Answer a request for a repository below `root`."""
    path, _, query = handler.path.partition("?")
    body = read_body(handler)
    env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "u"}
    env |= {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": handler.command, "CONTENT_LENGTH": str(len(body))}
    env |= {"CONTENT_TYPE": handler.headers.get("Content-Type", "")}
    env |= {"HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""), "GIT_PROTOCOL": handler.headers.get("Git-Protocol", "")}
    done = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, check=False)
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
    handler.send_response(int(fields.pop("Status", "200").split()[0]))
    for name, value in fields.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
