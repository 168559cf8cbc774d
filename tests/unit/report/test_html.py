"""HTML elements: escaping and meters."""

from r1ray.report.html import escape, meter, node


def test_text_and_attributes_are_escaped_once():
    inner = node("b", 'a<b & "c"')
    assert node("p", inner, title='"><script>', class_="x", hidden=None) == (
        '<p title="&quot;&gt;&lt;script&gt;" class="x"><b>a&lt;b &amp; &quot;c&quot;</b></p>'
    )
    assert escape(escape("<")) == "&lt;"


def test_a_meter_is_clipped_to_its_width():
    assert 'width="100.0"' in meter(1.2)
    assert meter(None) == "–"
