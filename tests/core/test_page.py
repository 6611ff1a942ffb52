"""Pages of HTML: strangers' text, and the policy that the browser enforces."""

import base64
import hashlib

from visionkit.core.page import document, escape, policy, variables


def test_text_of_strangers():
    assert escape('<a href="x">&\'\u202e\n') == "&lt;a href=&quot;x&quot;&gt;&amp;&#x27;\\u202e\\n"


def test_a_policy_by_hashes():
    digest = base64.b64encode(hashlib.sha256(b"p {}").digest()).decode()
    assert policy("p {}") == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "script-src 'sha256-" in policy("p {}", "alert(1)")


def test_a_page():
    text = document("<b>", "<p>x</p>", style="p {}", script="1")
    assert "<title>&lt;b&gt;</title><style>p {}</style>" in text
    assert "<body>\n<p>x</p>\n<script>1</script>\n</body>" in text
    assert "<script>" not in document("a", "b", style="")


def test_colours_of_both_schemes():
    text = variables({"a": "#111111"}, {"a": "#eeeeee"})
    assert text.index("--a: #111111") < text.index("prefers-color-scheme: dark") < text.index("--a: #eeeeee")
