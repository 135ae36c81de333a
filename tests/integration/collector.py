"""A collector of spans: takes OTLP over HTTP, and does with it what a test says."""
import base64
import http.server
import json
import threading

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def as_proto(body):
    """OTLP's JSON is that of protobuf but for the ids, which are hexadecimal."""
    message = json.loads(body)
    for group in message["resourceSpans"]:
        for scope in group["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        assert span[name] == span[name].lower()
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return json_format.Parse(json.dumps(message), ExportTraceServiceRequest(), ignore_unknown_fields=False)


class Span:
    def __init__(self, span, resource):
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.name, self.kind, self.flags = span.name, span.kind, span.flags
        self.start, self.end = span.start_time_unix_nano, span.end_time_unix_nano
        self.failed = span.status.code == span.status.STATUS_CODE_ERROR
        self.attributes = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}
        self.resource = resource

    def __repr__(self):
        return f"{self.name} {self.trace}/{self.id} below {self.parent or 'nothing'} {self.attributes}"


class Collector:
    def __init__(self):
        self.requests = []      # every one: (path, fields, body)
        self.spans = []         # of those that were taken
        self.answer = (200, {}, b"{}")
        self.go_on = threading.Event()
        self.go_on.set()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.requests.append((self.path, dict(self.headers), body))
                collector.go_on.wait()
                status, fields, said = collector.answer
                if status == 200:
                    collector.take(body)
                self.send_response(status)
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def take(self, body):
        for group in as_proto(body).resource_spans:
            resource = {pair.key: pair.value.string_value for pair in group.resource.attributes}
            for scope in group.scope_spans:
                assert scope.scope.name == "spritegate"
                self.spans += [Span(span, resource) for span in scope.spans]

    def of(self, trace):
        return {span.name: span for span in list(self.spans) if span.trace == trace}

    def close(self):
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
