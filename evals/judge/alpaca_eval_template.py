"""The prompt of AlpacaEval 1's annotator `alpaca_eval_gpt4`, unchanged.

Source: alpaca-eval 0.6.6 on PyPI, evaluators_configs/alpaca_eval_gpt4/alpaca_eval.txt. Copyright
2023 Yann Dubois, Xuechen Li, Rohan Taori, Tianyi Zhang and Ishaan Gulrajani, Apache License 2.0.
The file is ChatML; here are the contents of its two messages, stripped as its own reader does.
"""

SYSTEM = "You are a helpful assistant, that ranks models by the quality of their answers."
# The placeholders are {instruction}, {output_1} and {output_2}. Other braces are text.
USER = (
    "I want you to create a leaderboard of different of large-language models. To do so, "
    "I will give you the instructions (prompts) given to the models, and the responses "
    "of two models. Please rank the models based on which responses would be preferred "
    "by humans. All inputs and outputs should be python dictionaries.\n"
    "\n"
    "Here is the prompt:\n"
    "{\n"
    '    "instruction": """{instruction}""",\n'
    "}\n"
    "\n"
    "Here are the outputs of the models:\n"
    "[\n"
    "    {\n"
    '        "model": "model_1",\n'
    '        "answer": """{output_1}"""\n'
    "    },\n"
    "    {\n"
    '        "model": "model_2",\n'
    '        "answer": """{output_2}"""\n'
    "    }\n"
    "]\n"
    "\n"
    "Now please rank the models by the quality of their answers, so that the model with "
    "rank 1 has the best output. Then return a list of the model names and ranks, i.e., "
    "produce the following output:\n"
    "[\n"
    "    {'model': <model-name>, 'rank': <model-rank>},\n"
    "    {'model': <model-name>, 'rank': <model-rank>}\n"
    "]\n"
    "\n"
    "Your response must be a valid Python dictionary and should contain nothing else "
    "because we will directly execute it in Python. Please provide the ranking that the "
    "majority of humans would give."
)
