"""Task formats: what one example looks like, how it is written for the model, and how a completion is validated.

example.py             Example; JSON objects from text; fields by path
row_file.py            the rows of a file, not validated
options.py             --format, --inputs, --answer, --labels, --example, ..., and what they change
infer.py               the format of an example, or of --format or named fields without one; infer_rows.py: of many rows
infer_roles.py         inputs, options, answer, ... by names and values; refuses examples that would be misread
infer_labels.py        the possible answers: labels, or keys (positions or letters) of options
task_format.py         TaskFormat; loads schemas/*.json and --format files; specializes a format to examples
roles.py               what each field is for; which option is right, whatever the answer field holds
rules.py               conditions between fields; what is special about conversations, tags and function calls
schema_utils.py        functions on JSON Schemas: constants, labels, free texts
schema_keywords.py     the JSON Schema keywords that a format may use
prompt_encoding.py     the prompt encoding: writes an example, reads an item
response.py            the schema that a request sends; from a completion to candidates and rejects
candidate.py           Candidate; what an exact duplicate is; validates an example
reject.py              Reject; the reject reasons, with advice
text_normalization.py  which texts are equal, and what a word is
"""
