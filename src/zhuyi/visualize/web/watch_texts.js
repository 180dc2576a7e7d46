// What the page that watches trainings says, in both languages.
import { texts } from "zhuyi/language.js";

export const t = texts({
  en: {
    title: "Watching a training", live: "live", gone: "The server does not answer; trying again.", asOf: (date) => `as of ${date}`,
    waiting: "Nothing yet: the first evaluation is still to come.",
    runs: "Runs", curves: "Curves", shown: (name) => `show ${name}`,
    training: "training", finished: "finished", begins: "not begun", quiet: (time) => `no news for ${time}: perhaps stopped`, unfinished: "not finished",
    step: "step", stepNumber: (step) => `step ${step}`, steps: "steps", minutes: "minutes", spent: "time", left: "time left", speed: "speed", now: "now", best: "best",
    about: (time) => `about ${time}`, atStep: (step) => `at step ${step}`, perSecond: (n) => `${n} tokens/s`,
    across: "along", scale: "loss axis", linear: "linear", log: "logarithmic",
    train_loss: "training", valid_loss: "validation", loss: "loss, nats a token", error: "mean absolute error",
    learning_rate: "learning rate", tokens_per_second: "tokens a second",
    writes: "What it writes", run: "run", evaluation: "evaluation", previous: "earlier", next: "later", play: "play", pause: "stop",
    source: "source", text: "model", reference: "reference", noSamples: "This run has noted no samples.",
    agreeing: "What agrees with the reference is underlined.",
    overTime: "all evaluations", looks: "Where it looks",
    lookedHint: "A row for each word of the reference, a column for each of the source: the last layer's heads, their mean. Point at a cell to read it.",
    map: (step) => `Cross-attention at step ${step}: rows are target words, columns source words.`,
    noMap: "This run looks at no source, or has noted no map.",
    spread: "source words looked at, on average", spreadHint: "The lower, the sharper: 1 is a single word.",
    mostLooked: "as a list", looksMost: (from, to, share) => `${from} → ${to} ${share}`,
    failed: "This browser cannot unpack the map.",
    hour: (h, m) => `${h} h ${m} min`, minute: (m) => `${m} min`, second: (s) => `${s} s`,
  },
  zh: {
    title: "观看训练", live: "实时", gone: "服务器没有回应，正在重试。", asOf: (date) => `截至 ${date}`,
    waiting: "还没有内容：第一次评估尚未进行。",
    runs: "训练", curves: "曲线", shown: (name) => `显示 ${name}`,
    training: "训练中", finished: "已结束", begins: "尚未开始", quiet: (time) => `已 ${time}没有动静，可能已停止`, unfinished: "未完成",
    step: "步", stepNumber: (step) => `第 ${step} 步`, steps: "步数", minutes: "分钟", spent: "用时", left: "剩余", speed: "速度", now: "当前", best: "最佳",
    about: (time) => `约 ${time}`, atStep: (step) => `第 ${step} 步`, perSecond: (n) => `每秒 ${n} 词元`,
    across: "横轴", scale: "损失轴", linear: "线性", log: "对数",
    train_loss: "训练", valid_loss: "验证", loss: "损失（每词元，nat）", error: "平均绝对误差",
    learning_rate: "学习率", tokens_per_second: "每秒词元数",
    writes: "模型写了什么", run: "训练", evaluation: "评估", previous: "较早", next: "较晚", play: "播放", pause: "停止",
    source: "原文", text: "模型", reference: "参考", noSamples: "这次训练没有记录样例。",
    agreeing: "与参考一致之处加了下划线。",
    overTime: "所有评估", looks: "模型看向哪里",
    lookedHint: "每行是参考译文的一个词元，每列是原文的一个词元：最后一层各个头的平均。指向一格可读出数值。",
    map: (step) => `第 ${step} 步的交叉注意力：行是译文词元，列是原文词元。`,
    noMap: "这个模型不看原文，或没有记录注意力图。",
    spread: "平均看多少个原文词元", spreadHint: "越低越集中：1 表示只看一个词元。",
    mostLooked: "以列表显示", looksMost: (from, to, share) => `${from} → ${to} ${share}`,
    failed: "此浏览器无法解压注意力图。",
    hour: (h, m) => `${h} 小时 ${m} 分`, minute: (m) => `${m} 分钟`, second: (s) => `${s} 秒`,
  },
});

/** A duration in the words of the reader's language. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return t("second", whole);
  const minutes = Math.round(whole / 60);
  return minutes < 60 ? t("minute", minutes) : t("hour", Math.floor(minutes / 60), minutes % 60);
}
