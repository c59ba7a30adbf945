-- luacheck lua spec examples bench doc
std = "luajit"
max_line_length = 120
files["spec"] = {std = "luajit+busted"}
