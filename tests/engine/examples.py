"""The query and documents that every kind of model scores."""

QUERY = "What is a panda?"
DOCUMENTS = [
    "hi",
    "it is a bear",
    "The giant panda is a bear species endemic to China.",
    "Ünïcödé, 漢字 and an emoji 🐼",
]
INSTRUCTION = "Judge by bamboo"
TOLERANCE = 1e-3
