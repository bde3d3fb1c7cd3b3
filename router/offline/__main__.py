"""`python -m router.offline`: serve the embedded upstream until interrupted, to point a program at it by hand."""

from __future__ import annotations

import threading

import click

from router.offline import Upstream


@click.command(
    epilog="Example: python -m router.offline --port 8008, then set ANTHROPIC_BASE_URL=http://127.0.0.1:8008"
)
@click.option("--port", default=0, show_default="a free one", help="Port on 127.0.0.1.")
def main(port: int) -> None:
    """Serve simulated Anthropic and OpenAI APIs; the URL goes to stdout. The OpenAI SDK's base URL ends in /v1."""
    try:
        with Upstream(port=port) as upstream:
            click.echo(upstream.url)
            threading.Event().wait()
    except OSError as exc:
        raise click.ClickException(f"cannot listen on port {port}: {exc.strerror}; choose another --port") from exc
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


if __name__ == "__main__":
    main()
