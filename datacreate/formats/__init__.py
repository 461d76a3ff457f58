"""Task formats: what one example looks like, how it is written for the model, and how a completion is validated.

example.py             Example, and the formatting example from a file
infer.py               the format of an example, --labels and --range; yes_no.py: yes and no in many languages
task_format.py         TaskFormat, roles and rules; loads schemas/*.json and --format files
schema_keywords.py     the JSON Schema keywords that a format may use
serialization.py       the prompt encoding: writes an example, reads an item
response_schema.py     the grammar of a request
parse.py               from a completion to candidates and rejects
validate.py            Candidate, Reject, the reject reasons; validates an example
text_normalization.py  which texts are equal, and what a word is
"""
