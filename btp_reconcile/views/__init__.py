"""Views of a plan or a report: pure functions from the JSON form to what people, reviews and other programs read."""
