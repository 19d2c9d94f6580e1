/* The table of commands, and the way from argv to one of them. */
#include "cli/cli.h"
#include "cli_internal.h"
#include "config/nearest.h"
#include "util/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTIONS_HELP                                                                                         \
    "\nOptions come from built-in values, the config file (--config FILE, else $SMGPT_CONFIG, else\n"        \
    "./smgpt.json if it is there), the environment and --set key=value, later ones over earlier\n"           \
    "ones. `smgpt-dist help options` lists them.\n"

static const char train_help[] =
    "usage: smgpt-dist [train] [--config FILE] [--stage all|1|2|3] [--device auto|cpu|cuda]\n"
    "                  [--resume auto|none|DIR] [--set key=value]... [--dry-run]\n"
    "\n"
    "Trains the three stages, or one of them, on the ranks that mpirun or srun started (one without them).\n"
    "  --stage    which stages (all)\n"
    "  --device   where to compute (auto)\n"
    "  --resume   auto: go on from the newest checkpoint; none: start anew, what is there is set aside;\n"
    "             DIR: go on from this checkpoint (auto)\n"
    "  --dry-run  make the packs and say what would be trained\n" OPTIONS_HELP;

static const char pack_help[] =
    "usage: smgpt-dist pack (--config FILE | --data FILE --model DIR) [--stage 1|2|3|all] --out DIR\n"
    "\n"
    "Turns the data set into token rows: DIR/stage<k>.h5.\n"
    "  --data   the data set (option data_json)\n"
    "  --model  model directory whose tokenizer is used (option model)\n"
    "  --stage  which stages (all)\n"
    "  --out    directory for the packs\n" OPTIONS_HELP;

static const char generate_help[] =
    "usage: smgpt-dist generate --model_path DIR (--prompt TEXT | --prompts FILE) [--participant_id ID] [--n "
    "1]\n"
    "                  [--output FILE] [--max_new_tokens N] [--temperature X] [--top_p X] [--seed N]\n"
    "                  [--per_prompt_vocab true|false] [--greedy]\n"
    "\n"
    "Text to motion tokens. One line of motion ids per sample on stdout, or to FILE; a FILE ending in .json "
    "gets\n"
    "a list of {prompt, participant_id, motion_tokens, n_tokens, logprob, ended}.\n"
    "  --model_path  stage output, checkpoint, PEFT adapter or model directory\n"
    "  --prompts     a file with one prompt a line, or a JSON list of prompts\n"
    "  --n           samples of each prompt; those of a prompt follow from the seed, whatever else is asked "
    "for\n"
    "  --per_prompt_vocab  a known prompt uses only the codes that the data set has for it (true)\n"
    "  --greedy      the likeliest token each time; temperature and top_p do not count\n" OPTIONS_HELP;

static const char complete_help[] =
    "usage: smgpt-dist complete --model_path DIR (--text TEXT | --ids FILE.json) [--max_new_tokens N] "
    "[--greedy]\n"
    "                  [--json FILE]\n"
    "\n"
    "Plain continuation of a text, or of each id list of FILE.json, without the rules of motion.\n"
    "  --json  write [{ids: [the new ones], logprob}] to FILE, not the continuations to "
    "stdout\n" OPTIONS_HELP;

static const char tokenize_help[] =
    "usage: smgpt-dist tokenize --model DIR [--decode] [FILE]\n"
    "\n"
    "A JSON list of texts (FILE, else stdin) to a JSON list of id lists on stdout. Texts are taken as they "
    "are:\n"
    "added tokens of the tokenizer are found in them, no beginning-of-text token is put in front.\n"
    "  --model   model directory with tokenizer.json\n"
    "  --decode  the other way: lists of ids to texts\n";

static const char loss_help[] =
    "usage: smgpt-dist loss --model_path DIR --pack FILE [--group train|eval] [--json FILE]\n"
    "\n"
    "Loss of each row of a pack, without training.\n"
    "  --json  write {rows: [{row, loss_sum, n_labels}], loss} to FILE\n" OPTIONS_HELP;

static const char init_model_help[] =
    "usage: smgpt-dist init-model --family qwen3|gemma3_text|llama --preset tiny|small|0.6b\n"
    "                  --tokenizer DIR|bytes --seed N --out DIR\n"
    "\n"
    "A model directory with random weights, as transformers reads it: for trials and tests.\n"
    "  --preset     tiny: below a million parameters besides the vocabulary; small: about ten million; 0.6b: "
    "the\n"
    "               shape of Qwen3-0.6B in bfloat16, 1.2 GB, to measure with\n"
    "  --tokenizer  directory with tokenizer.json to copy, or `bytes`: one token a byte\n"
    "  --seed       equal seeds give equal files\n"
    "  --out        directory to make; it must not be there, or be empty\n";

static const char export_help[] =
    "usage: smgpt-dist export --model_path DIR --merged DIR\n"
    "\n"
    "Writes a plain Hugging Face model directory with the adapter merged into the weights.\n"
    "  --model_path  stage output, checkpoint or PEFT adapter\n"
    "  --merged      directory to write\n" OPTIONS_HELP;

static const char hub_help[] =
    "usage: smgpt-dist hub whoami | status | sync\n"
    "       smgpt-dist hub pull OWNER/NAME[@REVISION] DIR [--folder NAME]\n"
    "       smgpt-dist hub fetch-data [--url URL]\n"
    "       smgpt-dist hub push DIR [--repo OWNER/NAME] [--folder NAME]\n"
    "\n"
    "whoami  name of the token's owner, on stdout\n"
    "status  of each stage: the steps whose checkpoints are on the Hub, wait for it, are here\n"
    "sync    sends what waits in {work_dir}/spool, for at most upload_wait\n"
    "push    the files of DIR in one commit; the repository is made, private, if it is not there. Again is "
    "safe: only\n"
    "        what the Hub lacks is sent. Of a checkpoint's repository the two newest are kept\n"
    "pull    the files of a repository, or of one folder of it, into DIR; broken off, it goes on where it "
    "was\n"
    "fetch-data  the data set (option data_json) from URL, else from Google Drive (option gdrive_id)\n"
    "  --repo    the repository (else that of the checkpoint's stage: options hub_repo_s1..3, hf_user)\n"
    "  --folder  folder in the repository, \"\" for its root (else the name of DIR)\n"
    "The token comes from HF_TOKEN, HUGGINGFACE_HUB_TOKEN, HUGGING_FACE_HUB_TOKEN or the token file of\n"
    "huggingface_hub; HF_ENDPOINT is another Hub than the public one.\n" OPTIONS_HELP;

static const char verify_help[] =
    "usage: smgpt-dist verify --against DIR [--json FILE]\n"
    "       smgpt-dist verify --resume CHECKPOINT [--steps K]\n"
    "\n"
    "  --against  compute what transformers and PEFT recorded in DIR (model/, init_adapter/, pack.h5,\n"
    "             forward*.json, train.jsonl, eval.json, generate.json; docs/fidelity.md) and print the\n"
    "             largest differences. With --set compute=bfloat16: the distances to a recorded float64 run\n"
    "  --json     write them to FILE too\n"
    "  --resume   train the steps before this checkpoint again, from an earlier one of its directory, on\n"
    "             whatever ranks and processors are here, and say whether the bytes are equal\n"
    "  --steps    how many steps at least (else as many as lie between the two newest "
    "checkpoints)\n" OPTIONS_HELP;

static const char plan_help[] =
    "usage: smgpt-dist plan [--stage all|1|2|3] [--ranks N] [--ranks_of_a_host N] [--json FILE]\n"
    "\n"
    "Says what training would take, without training or reading the weights: bytes of weights, activations\n"
    "(kept, computed again, and as memory_limit has it), gradients and moments, a rank's and a host's; "
    "steps; tokens with and without shared prefixes; the "
    "least\n"
    "time at the rate of products measured now. The packs are made if they are not there.\n"
    "  --stage            which stages (all)\n"
    "  --ranks            ranks that will train (1)\n"
    "  --ranks_of_a_host  ranks that share a host (all of them)\n"
    "  --json             write all figures to FILE\n" OPTIONS_HELP;

static const char bench_help[] =
    "usage: smgpt-dist bench [--stage 1|2|3] [--steps N] [--warmup N] [--growth] [--json FILE]\n"
    "\n"
    "Makes a stage's first steps, as training would, and says how fast they were: examples and tokens a "
    "second,\n"
    "memory, start-up, each operation's share and rate beside the best rate of products measured in the "
    "same\n"
    "run. Nothing is saved but the pack. Under mpirun: of all ranks, operations of rank 0.\n"
    "  --stage   whose rows (2)\n"
    "  --steps   steps that count (3)\n"
    "  --warmup  steps before them (1)\n"
    "  --growth  also how the cost grows with rows, length, prefix length and vocabulary, on one rank\n"
    "  --json    write all figures to FILE\n" OPTIONS_HELP;

const struct command cli_commands[] = {
    {"train", cmd_train, "train the three stages, or one; the command when none is given", train_help},
    {"pack", cmd_pack, "data set to token rows", pack_help},
    {"generate", cmd_generate, "text to motion tokens", generate_help},
    {"complete", cmd_complete, "plain continuation of text or ids", complete_help},
    {"eval", NULL, "metrics on a data set", ""},
    {"tokenize", cmd_tokenize, "texts to ids and back", tokenize_help},
    {"loss", cmd_loss, "loss of each row of a pack", loss_help},
    {"hub", cmd_hub, "the Hugging Face Hub: whoami, status, push, pull, sync, fetch-data", hub_help},
    {"init-model", cmd_init_model, "a small model with random weights", init_model_help},
    {"export", cmd_export, "a plain model directory with the adapter merged in", export_help},
    {"plan", cmd_plan, "memory, steps and tokens of a run before it starts", plan_help},
    {"doctor", NULL, "what this machine has and lacks", ""},
    {"selftest", NULL, "the operations against their references", ""},
    {"verify", cmd_verify, "compare with reference runs, or replay steps of a run", verify_help},
    {"bench", cmd_bench, "speed of training on this machine", bench_help},
    {"help", cmd_help, "this list; help COMMAND; help options", "usage: smgpt-dist help [COMMAND|options]\n"},
    {"version", cmd_version, "the version", "usage: smgpt-dist version\n"},
    {NULL, NULL, NULL, NULL},
};

static const struct command *find(const char *name)
{
    for (const struct command *c = cli_commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static enum status unknown(const char *name, struct err *err)
{
    const char *names[sizeof cli_commands / sizeof *cli_commands];
    size_t n = 0;
    for (const struct command *c = cli_commands; c->name; c++)
        names[n++] = c->name;
    err_set(err, ST_USAGE, "unknown command '%.60s', the nearest is '%s'", name,
            names[word_nearest(name, names, n)]);
    return err_hint(err, "`smgpt-dist help` lists the commands");
}

static void print_commands(void)
{
    printf("usage: smgpt-dist [COMMAND] [ARGUMENTS]\n\n"
           "Fine-tunes decoder language models on discrete motion tokens with LoRA.\n\n");
    for (const struct command *c = cli_commands; c->name; c++)
        printf("  %-11s %s%s\n", c->name, c->help, c->run ? "" : " (not built yet)");
    printf("\nNo command: train all stages. `smgpt-dist help COMMAND` says more, `smgpt-dist help options` "
           "lists\n"
           "the options.\n"
           "Exit codes: 0 done, 1 a defect of the program, 2 wrong usage or option, 3 bad input, 4 "
           "environment,\n"
           "5 network, 75 uploads waiting, 85 stopped and saved: run again to go on.\n");
}

static enum status print_options(struct err *err)
{
    struct buf text = BUF_INIT;
    enum status st = options_help(&text, err);
    if (st == ST_OK)
        printf("Options: keys of the config file and of --set, their environment variables and built-in "
               "values.\n\n%s",
               text.data);
    buf_release(&text);
    return st;
}

static enum status print_command(const char *name, struct err *err)
{
    const struct command *c = find(name);
    if (!c)
        return unknown(name, err);
    if (c->run)
        fputs(c->long_help, stdout);
    else
        printf("smgpt-dist %s: %s. It is not built yet.\n", c->name, c->help);
    return ST_OK;
}

int cmd_help(int argc, char **argv)
{
    struct err err = ERR_INIT;
    const char *topic[1];
    struct arguments a = {.free = topic, .max_free = 1};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK && a.n_free == 0)
        print_commands();
    else if (st == ST_OK && strcmp(topic[0], "options") == 0)
        st = print_options(&err);
    else if (st == ST_OK)
        st = print_command(topic[0], &err);
    return cli_end(st, &err);
}

int cmd_version(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct arguments a = {0};
    enum status st = arguments_parse(&a, argc, argv, &err);
    if (st == ST_OK)
        printf("smgpt-dist %s\n", SMGPT_VERSION);
    return cli_end(st, &err);
}

/* --help or -h where an argument may stand asks for the command's help, whatever else is there. */
static bool asks_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
        if (strcmp(argv[i], "--help") == 0 || (i == 1 && strcmp(argv[i], "-h") == 0))
            return true;
    return false;
}

static int run_command(const struct command *c, int argc, char **argv)
{
    struct err err = ERR_INIT;
    if (asks_help(argc, argv))
        return cli_end(print_command(c->name, &err), &err);
    if (c->run)
        return c->run(argc, argv);
    err_set(&err, ST_USAGE, "%s is not built yet", c->name);
    err_hint(&err, "`smgpt-dist help` lists what is");
    return cli_end(ST_USAGE, &err);
}

static int dispatch(int argc, char **argv)
{
    static char train[] = "train";
    struct err err = ERR_INIT;
    const char *first = argc > 1 ? argv[1] : NULL;
    if (first && (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0)) {
        print_commands();
        return 0;
    }
    if (first && strcmp(first, "--version") == 0)
        return cmd_version(argc - 1, argv + 1);
    if (first && first[0] != '-') {
        const struct command *c = find(first);
        return c ? run_command(c, argc - 1, argv + 1) : cli_end(unknown(first, &err), &err);
    }
    /* No command: the arguments are train's, whose name stands where the program's was. */
    if (argc < 1)
        return run_command(find("train"), 1, (char *[]){train, NULL});
    argv[0] = train;
    return run_command(find("train"), argc, argv);
}

/* Before MPI is up a process knows its rank from the launcher only. Without it each rank would print the
 * warnings about options, and errors would not say whose they are. */
static void log_by_launcher(void)
{
    static const char *const names[] = {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        int rank = value ? atoi(value) : 0;
        char host[64] = "this host";
        if (rank <= 0 || rank > 1 << 24)
            continue;
        gethostname(host, sizeof host - 1);
        log_init(rank, rank + 1, host);
        return;
    }
}

int cli_main(int argc, char **argv)
{
    log_by_launcher();
    int code = dispatch(argc, argv);
    /* A result that did not reach a full disk is no result. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == 0) {
        struct err err = ERR_INIT;
        return cli_end(err_errno(&err, ST_ENV, "cannot write to standard output"), &err);
    }
    return code;
}
