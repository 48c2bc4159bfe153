"""A page of another origin in a real browser; skipped where there is none."""

import http.server
import shutil
import subprocess
import threading

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGE = """<!doctype html><title>working</title><script>
(async () => {
  const ask = (path, body) => fetch("%s" + path, {method: "POST", headers: {"content-type": "application/json",
      authorization: "Bearer key", "x-stainless-lang": "js"}, body: JSON.stringify(body)});
  const told = [];
  try {
    const whole = await ask("/v1/chat/completions", {messages: [{role: "user", content: "Hi"}], max_tokens: 2});
    told.push(whole.status, !!whole.headers.get("x-request-id"));
    const stream = await ask("/v1/completions", {prompt: "Once", max_tokens: 2, stream: true});
    told.push(stream.status, (await stream.text()).includes("[DONE]"));
    const refused = await ask("/v1/completions", {prompt: "Once", temperature: 9});
    told.push(refused.status, (await refused.json()).error.param);
    const unknown = await ask("/chat/completions", {});
    told.push(unknown.status, (await unknown.json()).error.code);
  } catch (error) { told.push(error.name); }
  document.title = "told " + told.join(" ") + ".";
})();
</script>"""


@pytest.fixture
def serve_page():
    servers = []

    def serve(page):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page[0].encode())

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def shown(url, profile):
    """The page at `url` when its script has ended."""
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}",
         "--virtual-time-budget=20000", "--timeout=20000", "--dump-dom", url],
        capture_output=True, text=True, timeout=90,
    ).stdout  # fmt: skip


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_page_may_call_when_its_origin_is_listed(start_daemon, serve_page, tmp_path):
    page = [""]
    origin = serve_page(page)
    daemon = start_daemon("--api-keys", "key", "--cors-allow-origins", "https://other.example," + origin)
    page[0] = PAGE % daemon.url
    assert "told 200 true 200 true 400 temperature 404 unknown_url." in shown(origin, tmp_path / "listed")
    stranger = start_daemon("--api-keys", "key", "--cors-allow-origins", "https://other.example")
    page[0] = PAGE % stranger.url
    assert "told TypeError." in shown(origin, tmp_path / "stranger")
