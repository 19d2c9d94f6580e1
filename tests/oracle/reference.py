"""The reference side of the comparisons: transformers, PEFT and Trainer on tiny models, in float32 and float64.

Only public behaviour of the libraries is used; what they compute is recorded, never adjusted.
"""
import json
import os
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

FAMILIES = {
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "gemma3_text": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
}
STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


# ---- files ----


def read_json(*path):
    with open(os.path.join(*path)) as f:
        return json.load(f)


def write_json(value, *path):
    with open(os.path.join(*path), "w") as f:
        json.dump(value, f, indent=1)


def read_lines(*path):
    with open(os.path.join(*path)) as f:
        return [json.loads(line) for line in f]


def write_lines(rows, *path):
    with open(os.path.join(*path), "w") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)


def write_pack(path, groups, base_vocab, vocab, stage=None):
    """groups: name -> [(ids, labels)]; ids in base_vocab..vocab-1 are the new, trained rows."""
    with h5py.File(path, "w") as f:
        f.attrs["format_version"] = 1
        f.attrs["base_vocab_size"] = base_vocab
        f.attrs["vocab_size"] = vocab
        if stage:
            f.attrs["stage"] = stage
        for name, rows in groups.items():
            g = f.create_group(name)
            ends = [0]
            for ids, _ in rows:
                ends.append(ends[-1] + len(ids))
            for key, data, kind in (("input_ids", [x for ids, _ in rows for x in ids], "int32"),
                                    ("labels", [x for _, labels in rows for x in labels], "int32"),
                                    ("row_offsets", ends, "int64")):
                g.create_dataset(key, data=data, dtype=kind, compression="gzip", shuffle=True, fletcher32=True)


def read_pack(path, group):
    """[(ids, labels)] of one group."""
    with h5py.File(path, "r") as f:
        g = f[group]
        ids, labels, ends = g["input_ids"][:].tolist(), g["labels"][:].tolist(), g["row_offsets"][:].tolist()
    return [(ids[a:b], labels[a:b]) for a, b in zip(ends, ends[1:])]


def pack_vocab(path):
    """(first new id, end of the ids)"""
    with h5py.File(path, "r") as f:
        return int(f.attrs["base_vocab_size"]), int(f.attrs["vocab_size"])


# ---- models and adapters ----


@torch.no_grad()
def fill_randomly(model, family, seed):
    """Weights so large, and norms so uneven, that a wrong formula shows in the logits."""
    draw = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        z = torch.randn(p.shape, generator=draw)
        if p.dim() == 1:
            gain = 1.2 + 0.35 * z
            p.copy_(gain - 1 if family == "gemma3_text" else gain)
        elif "embed_tokens" in name or "lm_head" in name:
            p.copy_(0.3 * z)
        else:
            p.copy_(1.1 * z / p.shape[1] ** 0.5)


def new_generation(config, family):
    """config.json with the keys of transformers 5: rope_parameters and dtype."""
    c = dict(config)
    c["dtype"] = c.pop("torch_dtype", c.get("dtype", "float32"))
    scaling = c.pop("rope_scaling", None) or {"rope_type": "default"}
    rope = {"rope_theta": c.pop("rope_theta"), **scaling}
    if family == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": c.pop("rope_local_base_freq")}
        rope = {"full_attention": rope, "sliding_attention": local}
    c["rope_parameters"] = rope
    c["transformers_version"] = "5.1.0"
    return c


def old_generation(config):
    """The other way: what the reference's version reads."""
    c = dict(config)
    rope = c.pop("rope_parameters", None)
    if not rope:
        return c
    if "full_attention" in rope:
        c["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    rope = dict(rope)
    c["rope_theta"] = rope.pop("rope_theta")
    c["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    return c


def readable_model(path, scratch):
    """A directory with the same weights whose config.json the reference reads as it is meant: `path` itself, or one in
    `scratch` with the old names."""
    config = read_json(path, "config.json")
    if "rope_parameters" not in config:
        return path
    os.makedirs(scratch, exist_ok=True)
    for name in os.listdir(path):
        if name != "config.json" and not os.path.exists(os.path.join(scratch, name)):
            os.symlink(os.path.abspath(os.path.join(path, name)), os.path.join(scratch, name))
    write_json(old_generation(config), scratch, "config.json")
    return scratch


def make_base(spec, path):
    """Writes a random base model and returns nothing: it is always read back from its files."""
    config_class, model_class = FAMILIES[spec["family"]]
    model = model_class(config_class(**spec["config"]))
    fill_randomly(model, spec["family"], spec["seed"])
    model.to(STORED[spec.get("stored", "float32")])
    shards = {"max_shard_size": spec["shard_size"]} if "shard_size" in spec else {}
    model.save_pretrained(path, **shards)
    extra = os.path.join(path, "generation_config.json")
    if os.path.exists(extra):
        os.remove(extra)


def edit_config(spec, path):
    """Afterwards, what the reference's own version does not write: older or newer spellings of config.json."""
    config = read_json(path, "config.json")
    if spec.get("v5"):
        config = new_generation(config, spec["family"])
    for key, value in spec.get("config_edit", {}).items():
        config[key] = value
        if value is None:
            del config[key]
    write_json(config, path, "config.json")


def open_base(path, vocab=0, exact=False):
    """In float32 (exact: float64), grown to `vocab` rows when it has fewer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if model.get_input_embeddings().weight.shape[0] < vocab:
        model.resize_token_embeddings(vocab, mean_resizing=False)
    return in_float64(model) if exact else model


def in_float64(model):
    """Everything in float64 but the rotary angles and Gemma's embedding scale, which the model's definition fixes in
    float32. The library's norms and its loss go through float32 by themselves, so they are replaced."""
    def loss(logits, labels, vocab_size, num_items_in_batch=None, **_):
        wanted = torch.nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].reshape(-1)
        total = torch.nn.functional.cross_entropy(logits.reshape(-1, vocab_size), wanted, ignore_index=-100,
                                                  reduction="sum")
        return total / (num_items_in_batch if num_items_in_batch is not None else (wanted != -100).sum())

    def norm(gemma):
        def forward(self, x):
            eps = self.eps if gemma else self.variance_epsilon
            gain = 1 + self.weight if gemma else self.weight
            return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * gain
        return forward

    for m in model.modules():
        kind = type(m).__name__
        if kind.endswith("RMSNorm"):
            m.forward = types.MethodType(norm(kind.startswith("Gemma")), m)
    model.loss_function = loss
    return model.double()


def token_rows(tied, first, n, apart):
    """trainable_token_indices. On a tied base the two lists must differ for PEFT to train them apart: another order of
    the same ids does."""
    ids = list(range(first, first + n))
    if not ids:
        return None
    if not tied:
        return {"embed_tokens": ids, "lm_head": ids}
    return {"embed_tokens": ids, "lm_head": ids[::-1]} if apart else {"embed_tokens": ids}


def lora_config(spec, tied):
    return peft.LoraConfig(r=spec["r"], lora_alpha=spec["alpha"], use_rslora=spec.get("rslora", False),
                           target_modules=spec.get("targets", PROJECTIONS), task_type="CAUSAL_LM",
                           trainable_token_indices=token_rows(tied, spec["base_vocab"], spec["n_new"],
                                                              spec.get("rows") == "untied"))


def trained(model):
    """(name in adapter_model.safetensors, parameter) of all that is trained."""
    for name, p in model.named_parameters():
        if p.requires_grad:
            yield name.replace(".default", ""), p


@torch.no_grad()
def make_adapter(spec, model_dir, out):
    base = open_base(model_dir, spec["base_vocab"] + spec["n_new"])
    model = peft.get_peft_model(base, lora_config(spec, base.config.tie_word_embeddings))
    draw = torch.Generator().manual_seed(spec["seed"] + 1000)
    for name, p in trained(model):
        size = 0.6 / p.shape[1] ** 0.5 if "lora_A" in name else 0.06 if "lora_B" in name else 0.3
        p.copy_(size * torch.randn(p.shape, generator=draw))
    model.save_pretrained(out, save_embedding_layers=False)


def open_adapted(model_dir, adapter, vocab, exact=False, trainable=False):
    model = peft.PeftModel.from_pretrained(open_base(model_dir, vocab, exact), adapter, is_trainable=trainable)
    return model.double() if exact else model


# ---- what is measured ----


def row_loss(logits, labels):
    """(sum of cross entropies, number of targets) of one row; the sum in float64."""
    wanted = torch.tensor(labels[1:])
    n = int((wanted != -100).sum())
    if n == 0:
        return 0 * logits.sum(), 0
    losses = torch.nn.functional.cross_entropy(logits[:-1], wanted, ignore_index=-100, reduction="none")
    return losses.double().sum(), n


def forward(model, rows, n_logits=3, gradients=True):
    """Each row alone and unpadded: logits of the first ones, loss sums, and the gradient of the token mean."""
    model.eval()
    n_labels = sum(label != -100 for _, labels in rows for label in labels[1:])
    logits, found = {}, []
    for i, (ids, labels) in enumerate(rows):
        with torch.set_grad_enabled(gradients):
            out = model(input_ids=torch.tensor([ids])).logits[0]
            total, n = row_loss(out, labels)
            if gradients and n:
                (total / n_labels).backward()
        found.append({"row": i, "loss_sum": total.item(), "n_labels": n})
        if i < n_logits:
            logits[f"logits.{i}"] = out.detach().contiguous()
    report = {"rows": found, "loss": sum(r["loss_sum"] for r in found) / max(n_labels, 1), "n_labels": n_labels}
    grads = {}
    if gradients:
        grads = {name: (torch.zeros_like(p) if p.grad is None else p.grad).contiguous() for name, p in trained(model)}
    return logits, report, grads


def collate(rows):
    n = max(len(r["input_ids"]) for r in rows)
    pad = lambda values, with_what: values + [with_what] * (n - len(values))
    return {"input_ids": torch.tensor([pad(r["input_ids"], 0) for r in rows]),
            "labels": torch.tensor([pad(r["labels"], -100) for r in rows]),
            "attention_mask": torch.tensor([pad([1] * len(r["input_ids"]), 0) for r in rows])}


class Recorder(transformers.Trainer):
    """Trainer as it is, but that it keeps the unrounded loss of each step, and the file's order when told so."""
    in_order = False

    def _get_train_sampler(self, *args, **kwargs):
        if self.in_order:
            return torch.utils.data.SequentialSampler(self.train_dataset)
        return super()._get_train_sampler(*args, **kwargs)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.parts = getattr(self, "parts", []) + [loss.item()]
        return loss

    def log(self, logs, *args, **kwargs):
        if "grad_norm" in logs:
            self.record = getattr(self, "record", [])
            self.record.append({"step": self.state.global_step, "loss": sum(self.parts),
                                "grad_norm": logs["grad_norm"], "learning_rate": logs["learning_rate"]})
            self.parts = []
        super().log(logs, *args, **kwargs)


def train(model, pack, out, t, save_steps=0, resume=None):
    """Trainer with the settings t; returns its record and itself."""
    length = {"num_train_epochs": t["epochs"]} if "epochs" in t else {"max_steps": t["max_steps"]}
    args = transformers.TrainingArguments(
        output_dir=out, per_device_train_batch_size=t["batch"], gradient_accumulation_steps=t["ga"],
        learning_rate=t["lr"], weight_decay=t["weight_decay"], max_grad_norm=t["max_grad_norm"],
        adam_beta1=t["betas"][0], adam_beta2=t["betas"][1], adam_epsilon=t["eps"],
        lr_scheduler_type=t["schedule"], warmup_ratio=t["warmup_ratio"], seed=t["seed"], optim=t["optim"],
        save_strategy="steps" if save_steps else "no", save_steps=save_steps or 500, logging_steps=1,
        remove_unused_columns=False, label_names=["labels"], report_to="none", disable_tqdm=True, use_cpu=True,
        dataloader_pin_memory=False, **length)
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in read_pack(pack, "train")]
    trainer = Recorder(model=model, args=args, train_dataset=rows, data_collator=collate)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.in_order = not t["shuffle"]
    trainer.train(resume_from_checkpoint=resume)
    return trainer.record, trainer


@torch.no_grad()
def greedy(model, prompt, n):
    """Tokens of greedy decoding with the library's cache, and the smallest lead of a first over a second choice. None
    when computing without the cache chooses otherwise: then rounding decides."""
    out = model.generate(input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                         do_sample=False, max_new_tokens=n, min_new_tokens=n, pad_token_id=0, eos_token_id=None)[0]
    best = model(input_ids=out[None]).logits[0, len(prompt) - 1:-1].double().topk(2)
    if best.indices[:, 0].tolist() != out[len(prompt):].tolist():
        return None, 0.0
    return out[len(prompt):].tolist(), (best.values[:, 0] - best.values[:, 1]).min().item()


def largest_difference(a, b):
    """(absolute, relative to the largest value) over the tensors of b."""
    d = max((a[k].double() - b[k].double()).abs().max().item() for k in b)
    return d, d / max(b[k].double().abs().max().item() for k in b)


def relative(a, b):
    return abs(a - b) / max(abs(b), 1e-30)


def rows_apart(report, exact):
    """Largest relative difference of a row's loss sum."""
    return max(relative(x["loss_sum"], y["loss_sum"]) for x, y in zip(report["rows"], exact["rows"]) if y["n_labels"])


def versions():
    import accelerate
    return {m.__name__: m.__version__ for m in (torch, transformers, peft, accelerate)}
