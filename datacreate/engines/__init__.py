"""Engines: OpenAI-compatible servers, local or remote, that generate text and score labels.

engines/
  request.py        Request, Completion, ServerTest
  engine.py         Engine: what a run uses; it sends its requests from its own thread
  server_pool.py    many servers as one: capacity, retries, lost servers
  server.py         one server: HTTP, self-test, tokenizer
  chat_api.py       Request -> JSON body, JSON answer -> Completion
  addresses.py      --url -> the servers that exist now
  self_test.py      the tests that a server must pass before a run
  local_servers.py  starts, watches and stops servers on this machine
  engine_kind.py    EngineKind: what differs between engines
  vllm.py           vLLM: command line, environment and memory of its server, its requests
  llamacpp.py       the same for llama.cpp, and the process of its server
  options.py        the list of engines; options: which engine and servers, how a model is loaded
  factory.py        settings of a run -> its engines; GPUs of several servers; `serve`
"""
