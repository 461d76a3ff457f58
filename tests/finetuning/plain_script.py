"""Fine-tune an encoder on a file that datacreate wrote, with transformers alone: the layout is the usual one.

    python plain_script.py train.jsonl ENCODER OUT

Each line holds question, context, options and label, the label being a boolean (sequence
classification) or the text of an option (multiple choice).
"""

import sys

import datasets
from transformers import AutoModelForMultipleChoice as MultipleChoice
from transformers import AutoModelForSequenceClassification as Classification
from transformers import (
    AutoTokenizer,
    DataCollatorForMultipleChoice,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

file, encoder, out = sys.argv[1:]
set_seed(0)
rows = datasets.load_dataset("json", data_files=file, split="train")
tokenizer = AutoTokenizer.from_pretrained(encoder)
chosen = isinstance(rows[0]["label"], str)


def encode(row):
    options = row["options"] if chosen else [None]
    first, second = (
        [row["question"]] * len(options),
        options if chosen else row["context"] and [row["context"]],
    )
    inputs = tokenizer(first, second, truncation=True, max_length=60)
    label = options.index(row["label"]) if chosen else int(row["label"])
    return {**{name: ids if chosen else ids[0] for name, ids in inputs.items()}, "labels": label}


encoded = rows.map(encode, remove_columns=rows.column_names)
model = (MultipleChoice if chosen else Classification).from_pretrained(encoder)
collate = (DataCollatorForMultipleChoice if chosen else DataCollatorWithPadding)(tokenizer)
arguments = TrainingArguments(
    out, num_train_epochs=16, learning_rate=2e-3, report_to="none", save_strategy="no"
)
trainer = Trainer(model, arguments, train_dataset=encoded, data_collator=collate)
trainer.train()
answers = trainer.predict(encoded)
print("accuracy", (answers.predictions.argmax(-1) == answers.label_ids).mean())
