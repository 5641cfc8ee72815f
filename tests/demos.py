"""What the tests of several interactive figures use."""
import re


def said(page, pattern):
    """The numbers that the figure's sentence gives; it is the text below the figure and its alternative text alike."""
    sentence = page.locator("p").text_content()
    assert sentence in page.locator("svg").get_attribute("aria-label")
    found = re.search(pattern, sentence)
    assert found, sentence
    return [float(number.replace("−", "-")) for number in found.groups()]
