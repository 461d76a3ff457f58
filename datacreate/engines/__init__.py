"""Engines: OpenAI-compatible servers, local or remote, that generate text and score labels.

A run has a `ModelClient` for each model; it sends requests to all servers of the model. A `ServerSource` says where
these servers are: `RemoteServers` are those of `--url`, `LocalServers` are started by this process. A `ServerPool`
chooses a `Server` for each request, and repeats a request that failed. What differs between vLLM, llama.cpp and other
servers, their commands and their requests, is an `EngineKind`. `ENGINE_KINDS` lists the kinds that datacreate can
start; any other server is used through the standard API.

In the order in which one request passes them:

  factory.py         settings of a run -> its clients; GPUs of several servers; `serve`
  options.py         ENGINE_KINDS; the options: which engine and servers, how a model is loaded
  request.py         Request, Completion, ServerTest
  model_client.py    ModelClient: submits requests, and returns completions
  server_pool.py     ServerPool: chooses a server; retries, lost servers
  server.py          Server: HTTP, recognition, tests, tokenizer
  chat_api.py        Request -> JSON body, JSON response -> Completion
  server_errors.py   why a server did not answer: exceptions, HTTP statuses
  server_tests.py    the tests that a server must pass before a run
  engine_kind.py     EngineKind: what differs between engines
  vllm.py            vLLM: command line, environment and memory of its server, its requests
  llamacpp.py        the same for llama.cpp, and the process of its server
  server_sources.py  RemoteServers: the servers of --url; LocalServers: starts, restarts and stops servers here
"""
